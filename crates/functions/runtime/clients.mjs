// `env.db`, `env.files`, `env.fn`, `env.ai`: the app and the platform over the host's socket, under the names of /_/sdk.js.
// There is no token: whoever asks on that socket is this function.

const nativeFetch = globalThis.fetch;
/** The longest that one request for rows may take. */
const PATIENCE_MS = 30_000;
/** The longest that bytes may be on their way. */
const LONG_MS = 600_000;
/** No name that is looked up: it stands before the socket's paths. */
const PLATFORM = "http://platform.internal";

/** What the app answered instead of what was asked for; `status` is 0 where nothing answered. */
class AppError extends Error {
  constructor(status, problem, options) {
    super(problem.message ?? `the app answered ${status}`, options);
    this.name = "AppError";
    this.status = status;
    this.code = problem.code ?? (status >= 502 ? "unavailable" : "internal");
    this.hint = problem.hint;
    this.field = problem.field;
    this.requestId = problem.request_id;
  }
}

class Where {
  constructor(text) {
    this.text = text;
  }
  toString() {
    return this.text;
  }
}

/** A filter whose values cannot become part of the expression: where`title == ${title} && id in ${ids}`. */
function where(parts, ...values) {
  return new Where(parts.reduce((text, part, i) => text + literal(values[i - 1]) + part));
}

function literal(value) {
  if (value instanceof Where) return `(${value})`;
  if (value instanceof Date) return stringify(value.toISOString());
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (value === null || typeof value === "boolean" || typeof value === "bigint" || Number.isFinite(value)) return `${value}`;
  if (typeof value === "string") return stringify(value);
  throw new TypeError(`a filter takes no ${typeof value}: ${String(value)}`);
}

/** Versions of rows that came alone, for `ifMatch: row`. */
const versions = new WeakMap();

function remember(row, etag) {
  if (row && etag) versions.set(row, etag);
  return row;
}

function version(given) {
  const etag = typeof given === "object" ? versions.get(given) : given;
  if (etag === undefined) throw new TypeError("ifMatch takes a row as get, create or update gave it, or its ETag");
  return etag;
}

/** What every client asks with. `rights` is the context of the request whose caller's rights count; none: the function's own. */
function platformOf({ platform, meta = {} }, rights) {
  /** The answer as it is. */
  async function raw(path, { headers, ...init } = {}) {
    if (!platform?.sock) throw new AppError(0, { code: "unavailable", message: "this function has no platform to ask" });
    const sent = new Headers(headers);
    const context = rights ?? requests.getStore();
    if (context) sent.set("steading-fn-request", context.requestId);
    if (rights) sent.set("steading-fn-rights", "caller");
    try {
      return await (isBun ? nativeFetch(PLATFORM + path, { ...init, headers: sent, unix: platform.sock, redirect: "manual" })
        : nodeFetch(platform.sock, path, { ...init, headers: sent }));
    } catch (cause) {
      if (init.signal?.aborted && cause === init.signal.reason) throw cause;
      const hint = cause?.name === "TimeoutError" ? "it took too long" : "try again";
      throw new AppError(0, { code: "unavailable", message: "the platform cannot be reached", hint }, { cause });
    }
  }

  /** The answer, or what it was instead. */
  async function good(path, init) {
    const answer = await raw(path, init);
    if (answer.ok) return answer;
    throw new AppError(answer.status, parsed(await answer.text()) ?? {});
  }

  async function call(method, path, { body, bytes, headers, ifMatch, idempotencyKey, patience = PATIENCE_MS, signal } = {}) {
    const sent = { ...headers };
    if (body !== undefined) sent["content-type"] = "application/json";
    if (ifMatch !== undefined) sent["if-match"] = version(ifMatch);
    if (idempotencyKey !== undefined) sent["idempotency-key"] = idempotencyKey;
    const patient = AbortSignal.timeout(patience);
    const answer = await good(path, {
      method,
      headers: sent,
      body: bytes ?? (body === undefined ? undefined : stringify(body)),
      signal: signal ? AbortSignal.any([signal, patient]) : patient,
    });
    return { data: parsed(await answer.text()), etag: answer.headers.get("etag"), headers: answer.headers };
  }

  return { raw, good, call, origin: meta.url ? new URL(meta.url).origin : PLATFORM };
}

function parsed(text) {
  try {
    return text === "" ? null : JSON.parse(text);
  } catch {
    return null;
  }
}

/** `client(name).method(…)`, and the same as `client.method(name, …)`. */
function named(make, more) {
  const client = (name) => make(name);
  for (const method of Object.keys(make("x"))) {
    Object.defineProperty(client, method, { value: (name, ...rest) => make(name)[method](...rest), enumerable: true });
  }
  return Object.freeze(Object.assign(client, more));
}

const only = ({ ifMatch, idempotencyKey, signal } = {}) => ({ ifMatch, idempotencyKey, signal });
const joined = (names) => (Array.isArray(names) ? names.join(",") : names);

/** A table's name, a row's id or a function's name; anything else could lead to another path. */
function segment(text) {
  if (typeof text === "string" && /^[\w-]+$/.test(text)) return text;
  throw new TypeError(`not the name of a table, a bucket or a function, or the id of a row: ${String(text)}`);
}

function dbOf(assignment, rights) {
  const { call } = platformOf(assignment, rights);
  const table = (name) => {
    const path = `/_/db/${segment(name)}`;
    const one = (id) => `${path}/${segment(id)}`;
    const row = async (...request) => {
      const { data, etag } = await call(...request);
      return remember(data, etag);
    };
    const list = async ({ select, where: filter, order, expand, signal, ...options } = {}) => {
      const names = { select: joined(select), order: joined(order), expand: joined(expand) };
      return (await call("POST", `${path}/query`, { body: { where: filter?.toString(), ...names, ...options }, signal })).data;
    };
    return {
      list,
      async *all(options) {
        let page = { cursor: options?.cursor };
        do {
          page = await list({ limit: 200, ...options, cursor: page.cursor });
          yield* page.rows;
        } while (page.cursor);
      },
      aggregate: (numbers, options) => list({ ...options, aggregate: numbers }),
      get: async (id, { expand, signal } = {}) =>
        row("GET", expand ? `${one(id)}?expand=${encodeURIComponent(joined(expand))}` : one(id), { signal }),
      create: (body, options) => row("POST", path, { body, ...only(options) }),
      update: async (id, body, options) => row("PATCH", one(id), { body, ...only(options) }),
      put: async (id, body, options) => row("PUT", one(id), { body, ...only(options) }),
      upsert: async (body, options) =>
        row("PUT", `${path}?by=${encodeURIComponent(joined(options.by))}`, { body, ...only(options) }),
      delete: async (id, options) => void (await call("DELETE", one(id), only(options))),
    };
  };
  async function batch(operations, options) {
    const wire = ({ ifMatch, ...operation }) =>
      ifMatch === undefined ? operation : { ...operation, if_match: version(ifMatch) };
    const { data } = await call("POST", "/_/batch", { body: { operations: operations.map(wire) }, ...only(options) });
    for (const { row, etag } of data.results) remember(row, etag);
    return data.results;
  }
  return named(table, { batch, where, asCaller: (ctx) => ctx.db });
}

function filesOf(assignment, rights) {
  const { call, good, origin } = platformOf(assignment, rights);
  const bucket = (name) => {
    const base = `/_/files/${segment(name)}`;
    const at = (path, query) => {
      const asked = new URLSearchParams();
      for (const [key, value] of Object.entries(query ?? {})) {
        if (value !== undefined && value !== false) asked.set(key, value === true ? "" : value);
      }
      return `${base}/${steps(path)}${asked.size > 0 ? `?${asked}` : ""}`;
    };
    const list = async (options = {}) => {
      const asked = new URLSearchParams(Object.entries(options).filter(([, value]) => value !== undefined));
      return (await call("GET", asked.size > 0 ? `${base}?${asked}` : base)).data;
    };
    return {
      async upload(path, data, { type = data?.type, metadata, ifMatch, ifAbsent } = {}) {
        const headers = {};
        if (type) headers["content-type"] = type;
        if (metadata) headers["file-metadata"] = ascii(metadata);
        if (ifAbsent) headers["if-none-match"] = "*";
        return (await call("PUT", at(path), { bytes: data, headers, ifMatch, patience: LONG_MS })).data;
      },
      download: async (path, view) => (await good(at(path, view), { signal: AbortSignal.timeout(LONG_MS) })).blob(),
      /** The file as a Response, to be read piece by piece or handed on; other than 200 is an error. */
      fetch: async (path, { view, ...init } = {}) => good(at(path, view), init),
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
        for (const [key, value] of Object.entries(view)) url.searchParams.set(key, value === true ? "" : value);
        return url.href;
      },
      move: async (path, to) => (await call("POST", `${at(path)}/move`, { body: { to } })).data,
      copy: async (path, to) => (await call("POST", `${at(path)}/copy`, { body: { to } })).data,
      remove: async (path, { ifMatch } = {}) => void (await call("DELETE", at(path), { ifMatch })),
    };
  };
  return named(bucket, { asCaller: (ctx) => ctx.files });
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
  stringify(value).replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

function fnOf(assignment, rights) {
  const { raw, call } = platformOf(assignment, rights);
  const one = (name) => {
    const base = `/_/fn/${segment(name)}`;
    return {
      /** Calls it with a JSON value and gives back its JSON answer; a refusal is an AppError. */
      invoke: async (body = {}, { signal } = {}) => (await call("POST", base, { body, signal, patience: LONG_MS })).data,
      /** Its answer to a request: a path below it with what `fetch` takes, or a Request to hand on. */
      async fetch(input = "", init = {}) {
        if (typeof input === "string") return raw(base + (input === "" || input.startsWith("/") ? input : `/${input}`), init);
        const { pathname, search } = new URL(input.url);
        const { method, headers, signal } = input;
        return raw(base + pathname + search, { method, headers, signal, body: input.body, ...init });
      },
    };
  };
  return named(one, { asCaller: (ctx) => ctx.fn });
}

function aiOf(assignment) {
  const { raw, good } = platformOf(assignment);
  /** A completion in OpenAI's shape; with `stream: true` an async iterable of its chunks. */
  async function chat(body, { signal } = {}) {
    const headers = { "content-type": "application/json" };
    const answer = await good("/v1/chat/completions", { method: "POST", headers, body: stringify(body), signal });
    return body.stream ? chunks(answer.body) : answer.json();
  }
  chat.completions = { create: chat };
  const own = (input) => (typeof input === "string" || input instanceof URL ? { url: String(input) } : input);
  return Object.freeze({
    chat,
    /** For OpenAI's SDK: `new OpenAI({ baseURL: env.ai.baseURL, fetch: env.ai.fetch, apiKey: "none" })`. */
    baseURL: `${PLATFORM}/v1`,
    async fetch(input, init) {
      const { url, method, headers, body, signal } = own(input);
      const { pathname, search } = new URL(url, `${PLATFORM}/v1/`);
      return raw(pathname + search, { method, headers, body, signal, ...init });
    },
  });
}

/** The values of `data:` lines, until `[DONE]`; without that the answer is not whole. */
async function* chunks(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of body) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      const value = parsed(data);
      if (value?.error) throw new AppError(502, value.error);
      if (value) yield value;
    }
  }
  throw new AppError(502, { code: "unavailable", message: "the model's answer broke off" });
}
