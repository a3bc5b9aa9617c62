
/** Above this many bytes an upload goes in pieces, each of which is sent again where it did not arrive. */
const PIECE = 8 << 20;
/** How often one piece is sent again. */
const TRIES = 5;
/** The longest that bytes may be on their way. */
const LONG_MS = 600_000;
const TUS = { "tus-resumable": "1.0.0" };

/** The buckets of an app whose requests `call` makes. */
function filesOf(call, origin) {
  async function whole(address, blob, { type, metadata, ifMatch, ifAbsent }) {
    const headers = {};
    if (type) headers["content-type"] = type;
    if (metadata) headers["file-metadata"] = ascii(metadata);
    if (ifAbsent) headers["if-none-match"] = "*";
    return (await call("PUT", address, { bytes: blob, headers, ifMatch, patience: LONG_MS })).data;
  }

  async function pieces(bucket, path, blob, { type, metadata, onProgress }) {
    const said = Object.entries({ ...metadata, bucket, path, ...(type && { content_type: type }) });
    const headers = {
      ...TUS,
      "upload-length": `${blob.size}`,
      "upload-metadata": said.map(([name, value]) => `${name} ${base64(String(value))}`).join(","),
    };
    const place = (await call("POST", "/_/uploads", { headers })).headers.get("location");
    const offsetOf = ({ headers }) => Number(headers.get("upload-offset"));
    for (let offset = 0, tries = 0, answer; ; ) {
      try {
        if (tries > 0) offset = offsetOf(await call("HEAD", place, { headers: TUS }));
        while (offset < blob.size) {
          answer = await call("PATCH", place, {
            bytes: blob.slice(offset, offset + PIECE),
            headers: { ...TUS, "content-type": "application/offset+octet-stream", "upload-offset": `${offset}` },
            patience: LONG_MS,
          });
          offset = offsetOf(answer);
          tries = 0;
          onProgress?.({ sent: offset, size: blob.size });
        }
        return { bucket, path, size: blob.size, etag: answer?.headers.get("etag") ?? null };
      } catch (error) {
        const passes = error.status === 0 || error.status === 409 || error.status >= 500;
        if (!passes || ++tries > TRIES) throw error;
        await new Promise((done) => setTimeout(done, 200 * 2 ** tries));
      }
    }
  }

  return (bucket) => {
    const base = `/_/files/${segment(bucket)}`;
    const at = (path, query) => {
      const asked = new URLSearchParams();
      for (const [name, value] of Object.entries(query ?? {})) {
        if (value !== undefined && value !== false) asked.set(name, value === true ? "" : value);
      }
      return `${base}/${steps(path)}${asked.size > 0 ? `?${asked}` : ""}`;
    };
    const list = async (options = {}) => {
      const asked = new URLSearchParams(Object.entries(options).filter(([, value]) => value !== undefined));
      return (await call("GET", asked.size > 0 ? `${base}?${asked}` : base)).data;
    };
    return {
      async upload(path, data, { type, onProgress, ...options } = {}) {
        const blob = data instanceof Blob ? data : new Blob([data]);
        const given = { ...options, type: type ?? blob.type, onProgress };
        const address = at(path);
        onProgress?.({ sent: 0, size: blob.size });
        const conditional = options.ifMatch !== undefined || options.ifAbsent;
        if (blob.size > PIECE && !conditional) return pieces(bucket, path, blob, given);
        const file = await whole(address, blob, given);
        onProgress?.({ sent: blob.size, size: blob.size });
        return file;
      },
      download: async (path, view) => (await call("GET", at(path, view), { as: "blob", patience: LONG_MS })).data,
      list,
      async *all(options) {
        let page = { cursor: options?.cursor };
        do {
          page = await list({ limit: 200, ...options, cursor: page.cursor });
          yield* page.files;
        } while (page.cursor);
      },
      url: (path, view) => origin + at(path, view),
      async sign(path, { method = "get", expiresIn, maxSize, type, ...view } = {}) {
        const body = { method, expires_in: expiresIn, max_size: maxSize, content_type: type };
        const { data } = await call("POST", `${at(path)}/sign`, { body });
        const url = new URL(data.url, origin);
        for (const [name, value] of Object.entries(view)) url.searchParams.set(name, value === true ? "" : value);
        return url.href;
      },
      move: async (path, to) => (await call("POST", `${at(path)}/move`, { body: { to } })).data,
      copy: async (path, to) => (await call("POST", `${at(path)}/copy`, { body: { to } })).data,
      remove: async (path, { ifMatch } = {}) => void (await call("DELETE", at(path), { ifMatch })),
    };
  };
}

/** A file's path as a part of an address; `..` would lead to another one. */
function steps(path) {
  const parts = typeof path === "string" ? path.split("/") : [""];
  if (parts.some((part) => part === "" || part === "." || part === "..")) {
    throw new TypeError(`not the path of a file: ${String(path)}`);
  }
  return parts.map(encodeURIComponent).join("/");
}

/** JSON that fits into a header. */
const ascii = (value) =>
  JSON.stringify(value).replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));
