// Node's side: `node:http` as a server of web requests. What a request or an answer does not use is not made: the
// web classes of Node cost several times what serving costs, so light ones stand for them until somebody looks closer.

const nativeRequest = isBun ? null : globalThis.Request;
const nativeResponse = isBun ? null : globalThis.Response;

/** Gives `light` the properties of `base` that it does not have, each asked of the real object. */
function complete(light, base, real) {
  Object.setPrototypeOf(light.prototype, base.prototype);
  for (const key of Reflect.ownKeys(base.prototype)) {
    if (Object.hasOwn(light.prototype, key)) continue;
    const { value, get } = Object.getOwnPropertyDescriptor(base.prototype, key);
    const asked = get
      ? { get() { return real(this)[key]; } }
      : { value(...args) { return real(this)[key](...args); }, writable: true };
    if (get || typeof value === "function") Object.defineProperty(light.prototype, key, { ...asked, configurable: true });
  }
}

/** A request as it came; a real `Request` is made of it where more is asked than a function commonly asks. */
class NodeRequest {
  #incoming;
  #url;
  #pairs;
  #headers = null;
  #gone = null;
  #lost = false;
  #timer = null;
  #read = false;
  #real = null;

  constructor(incoming, url, pairs) {
    this.#incoming = incoming;
    this.#url = url;
    this.#pairs = pairs;
  }

  static real(request) {
    return #real in request ? request.#made() : request;
  }

  static lost(request) {
    request.#lost = true;
    request.#gone?.abort(new DOMException("the client has gone", "AbortError"));
  }

  /** The request's signal, which ends after `ms` too. Signals of the platform's own would be kept until then. */
  static signal(request, ms) {
    const { signal } = request;
    const late = () => request.#gone.abort(new DOMException("the deadline has passed", "TimeoutError"));
    if (ms < Infinity) request.#timer ??= setTimeout(late, Math.min(ms, 2 ** 31 - 1)).unref();
    return signal;
  }

  static over(request) {
    clearTimeout(request.#timer);
  }

  get method() {
    return this.#incoming.method;
  }
  get url() {
    return this.#url;
  }
  get headers() {
    return (this.#headers ??= this.#real?.headers ?? new Headers(this.#pairs));
  }
  get signal() {
    this.#gone ??= new AbortController();
    if (this.#lost) NodeRequest.lost(this);
    return this.#gone.signal;
  }
  get bodyUsed() {
    return this.#read || (this.#real?.bodyUsed ?? false);
  }

  #made() {
    if (this.#real) return this.#real;
    const { method } = this.#incoming;
    const hasBody = method !== "GET" && method !== "HEAD" && !this.#read;
    const init = { method, headers: this.headers, signal: this.signal };
    if (hasBody) Object.assign(init, { body: builtin("stream").Readable.toWeb(this.#incoming), duplex: "half" });
    this.#real = new nativeRequest(this.#url, init);
    this.#headers = this.#real.headers;
    return this.#real;
  }

  async #bytes() {
    if (this.#read) throw new TypeError("Body is unusable: Body has already been read");
    this.#read = true;
    const chunks = [];
    for await (const chunk of this.#incoming) chunks.push(chunk);
    return chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
  }

  async text() {
    return this.#real ? this.#real.text() : new TextDecoder().decode(await this.#bytes());
  }
  async json() {
    return this.#real ? this.#real.json() : JSON.parse(await this.text());
  }
  async bytes() {
    return this.#real ? this.#real.bytes() : new Uint8Array(await this.#bytes());
  }
  async arrayBuffer() {
    return (await this.bytes()).buffer;
  }
  clone() {
    if (this.bodyUsed) throw new TypeError("Body is unusable: Body has already been read");
    return this.#made().clone();
  }
}

/** An answer of text or bytes; a real `Response` is made of it where somebody looks into its body. */
class NodeResponse {
  #body;
  #status;
  #statusText;
  #headers;
  #real = null;

  constructor(body, init) {
    this.#body = body;
    this.#status = init?.status ?? 200;
    this.#statusText = init?.statusText ?? "";
    this.#headers = init?.headers ? new Headers(init.headers) : null;
    if (typeof body === "string" && this.#headers?.has("content-type") === false) {
      this.#headers.set("content-type", "text/plain;charset=UTF-8");
    }
  }

  /** Whether one of these can stand for what would be made. */
  static can(body, init) {
    const { status = 200, statusText = "" } = init ?? {};
    const isEmpty = body === null || body === undefined;
    const isPlain = isEmpty || typeof body === "string" || body instanceof Uint8Array || body instanceof ArrayBuffer;
    const isUsual = Number.isInteger(status) && status >= 200 && status <= 599 && statusText === "";
    return isPlain && isUsual && (isEmpty || ![204, 205, 304].includes(status));
  }

  static real(response) {
    return #real in response ? response.#made() : response;
  }

  /** What there is to send where nobody has looked into the body. */
  static plain(response) {
    return #real in response && !response.#real ? { body: response.#body, headers: response.#headers } : null;
  }

  get status() {
    return this.#status;
  }
  get statusText() {
    return this.#statusText;
  }
  get ok() {
    return this.#status >= 200 && this.#status <= 299;
  }
  get headers() {
    if (this.#real) return this.#real.headers;
    const type = typeof this.#body === "string" ? [["content-type", "text/plain;charset=UTF-8"]] : undefined;
    return (this.#headers ??= new Headers(type));
  }
  get bodyUsed() {
    return this.#real?.bodyUsed ?? false;
  }

  #made() {
    this.#real ??= new nativeResponse(this.#body, { status: this.#status, statusText: this.#statusText, headers: this.headers });
    return this.#real;
  }
}

/** Lets tenant code make light answers, and use light requests where it would use real ones. */
function lightenNode() {
  complete(NodeRequest, nativeRequest, NodeRequest.real);
  complete(NodeResponse, nativeResponse, NodeResponse.real);
  const real = (value) => (value instanceof NodeRequest ? NodeRequest.real(value) : value);
  globalThis.Request = new Proxy(nativeRequest, {
    construct(target, [input, ...rest], made) {
      return Reflect.construct(target, [real(input), ...rest], made === globalThis.Request ? target : made);
    },
  });
  const answer = new Proxy(nativeResponse, {
    construct(target, [body, init], made) {
      if (made === answer && NodeResponse.can(body, init)) return new NodeResponse(body, init);
      return Reflect.construct(target, [body, init], made === answer ? target : made);
    },
  });
  globalThis.Response = answer;
  nativeResponse.json = function json(data, init) {
    const headers = new Headers(init?.headers);
    if (!headers.has("content-type")) headers.set("content-type", "application/json");
    const text = JSON.stringify(data);
    if (text === undefined) throw new TypeError("Value is not JSON serializable");
    return new answer(text, { ...init, headers });
  };
  globalThis.fetch = function fetch(input, init) {
    return nativeFetch(real(input), init);
  };
}

/** How many reads are kept of a client that speaks before its handshake is answered. */
const EARLY_PIECES = 16;

/** Serves on the socket with `respond(request, said)`. */
function serveNode(path, respond) {
  const http = builtin("http");
  let open = 0;
  const isSocket = (incoming) => incoming.method === "GET" && incoming.headers.upgrade?.toLowerCase() === "websocket";
  // The host on the other end keeps the times; a connection that it holds open is not ours to close.
  const options = { keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0, maxHeaderSize: 65536, shouldUpgradeCallback: isSocket };

  /** The handler's answer; `release` says that it is not this request that is served on the connection any more. */
  async function serve(incoming, outgoing) {
    const { said, pairs } = partHeaders(incoming.rawHeaders);
    const url = said.url ?? `http://${incoming.headers.host ?? "localhost"}${incoming.url}`;
    const request = new NodeRequest(incoming, url, pairs);
    let isOpen = true;
    open++;
    const release = () => {
      if (isOpen) open--;
      isOpen = false;
      NodeRequest.over(request);
    };
    outgoing.on("close", () => {
      if (isOpen && !outgoing.writableFinished) NodeRequest.lost(request);
      release();
    });
    outgoing.on("error", () => {});
    const result = respond(request, said);
    return { response: result instanceof Promise ? await result : result, rid: said.request, release };
  }

  const server = http.createServer(options, (incoming, outgoing) => {
    const { method } = incoming;
    serve(incoming, outgoing).then(({ response, rid }) => send(outgoing, response, method, rid)).catch((error) => {
      log("error", `an answer could not be sent: ${inspected(error)}`);
      outgoing.destroy();
    });
  });
  server.on("upgrade", async (incoming, stream, head) => {
    stream.on("error", () => {});
    const outgoing = new http.ServerResponse(incoming);
    outgoing.shouldKeepAlive = false;
    outgoing.assignSocket(stream);
    // A stream that nobody reads does not tell that the client has gone.
    const early = [head];
    const keep = (bytes) => early.push(bytes) > EARLY_PIECES && stream.pause();
    const leave = () => stream.destroy();
    stream.on("data", keep).on("end", leave);
    const { response, rid, release } = await serve(incoming, outgoing);
    const socket = upgraded(response);
    const accepted = socket && acceptance(incoming.headers);
    if (!accepted) {
      outgoing.on("finish", () => stream.end());
      const wrong = { status: 426, headers: { "sec-websocket-version": "13" } };
      socket?.closed(1006, "");
      return send(outgoing, socket ? new Response("this is no handshake of a WebSocket (RFC 6455)", wrong) : response, incoming.method, rid);
    }
    release();
    if (stream.destroyed) return socket.closed(1006, "");
    outgoing.detachSocket(stream);
    const lines = ["HTTP/1.1 101 Switching Protocols", "upgrade: websocket", "connection: Upgrade", `sec-websocket-accept: ${accepted}`];
    for (const [name, value] of response.headers) if (!NOT_SENT.has(name)) lines.push(`${name}: ${value}`);
    stream.write(`${lines.join("\r\n")}\r\n\r\n`);
    stream.off("data", keep).off("end", leave).resume();
    speakWebSocket(stream, Buffer.concat(early), socket);
  });
  return new Promise((done, failed) => {
    server.on("error", failed);
    server.listen(path, () =>
      done({
        inFlight: () => open,
        stop() {
          server.close();
          server.closeIdleConnections();
        },
      }),
    );
  });
}

/** The reserved headers, and the others as pairs. */
function partHeaders(raw) {
  const said = {};
  const pairs = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i];
    if (name.length > PREFIX.length && name.slice(0, PREFIX.length).toLowerCase() === PREFIX) said[name.slice(PREFIX.length).toLowerCase()] = raw[i + 1];
    else pairs.push([name, raw[i + 1]]);
  }
  return { said, pairs };
}

/** Sends an answer: in one piece where it is one, else as it comes and as fast as it is taken. */
async function send(outgoing, response, method, rid) {
  const plain = NodeResponse.plain(response);
  const list = [];
  let sized = false;
  const headers = plain ? plain.headers : response.headers;
  // `fetch` has unpacked the body of what it gives, and leaves the headers of the packed one.
  const isUnpacked = !plain && response.url !== "" && headers.has("content-encoding");
  if (headers) {
    for (const [name, value] of headers) {
      if (NOT_SENT.has(name)) continue;
      if (isUnpacked && (name === "content-encoding" || name === "content-length")) continue;
      // Of a body that is at hand the length is known better.
      if (name === "content-length" && plain?.body) continue;
      if (name === "content-length") sized = true;
      list.push(name, value);
    }
  } else if (typeof plain.body === "string") list.push("content-type", "text/plain;charset=UTF-8");
  const { status, statusText } = response;
  const start = () => (statusText ? outgoing.writeHead(status, statusText, list) : outgoing.writeHead(status, list));
  if (plain) {
    const { body } = plain;
    const bytes = typeof body === "string" || !body ? body : body instanceof ArrayBuffer ? new Uint8Array(body) : body;
    if (!sized && status !== 204 && status !== 304) list.push("content-length", String(bytes ? Buffer.byteLength(bytes) : 0));
    start();
    if (bytes && method !== "HEAD") outgoing.end(bytes);
    else outgoing.end();
    return;
  }
  if (!response.body || method === "HEAD") {
    if (!response.body && !sized && status !== 204 && status !== 304) list.push("content-length", "0");
    start();
    outgoing.end();
    return void response.body?.cancel().catch(() => {});
  }
  const reader = response.body.getReader();
  outgoing.on("close", () => {
    if (!outgoing.writableFinished) reader.cancel(new DOMException("the client has gone", "AbortError")).catch(() => {});
  });
  start();
  try {
    let next = reader.read();
    // What begins with a wait is announced before it; else the head goes with the first piece.
    const isWaiting = Symbol("waiting");
    if ((await Promise.race([next, new Promise((done) => setImmediate(done, isWaiting))])) === isWaiting) outgoing.flushHeaders();
    for (;;) {
      const { done, value } = await next;
      if (done) break;
      if (!outgoing.write(typeof value === "string" ? value : new Uint8Array(value.buffer ?? value, value.byteOffset, value.byteLength))) {
        await new Promise((go) => {
          outgoing.once("drain", go);
          outgoing.once("close", go);
        });
      }
      if (outgoing.destroyed) return;
      next = reader.read();
    }
    outgoing.end();
  } catch (error) {
    if (!outgoing.destroyed) log("error", `the body of an answer failed: ${inspected(error)}`, rid);
    outgoing.destroy();
  }
}

let agent = null;

/** `fetch` over the host's socket. */
async function nodeFetch(sock, path, init) {
  const { Readable } = builtin("stream");
  const http = builtin("http");
  agent ??= new http.Agent({ keepAlive: true, maxFreeSockets: 8, timeout: 0 });
  const simple = init.body === undefined || init.body === null || typeof init.body === "string" || init.body instanceof Uint8Array;
  const request = simple ? null : new nativeRequest(PLATFORM + path, { ...init, duplex: "half" });
  const headers = Object.fromEntries(request?.headers ?? init.headers);
  const { method = "GET", signal } = init;
  signal?.throwIfAborted();
  const incoming = await new Promise((done, failed) => {
    const asked = http.request({ socketPath: sock, path, method, headers, agent, signal }, done);
    asked.on("error", (error) => failed(signal?.aborted ? signal.reason : error));
    if (request?.body) builtin("stream").pipeline(Readable.fromWeb(request.body), asked, (error) => error && failed(error));
    else asked.end(init.body ?? undefined);
  });
  const empty = method === "HEAD" || [204, 205, 304].includes(incoming.statusCode);
  if (empty) incoming.resume();
  const pairs = [];
  for (let i = 0; i < incoming.rawHeaders.length; i += 2) pairs.push([incoming.rawHeaders[i], incoming.rawHeaders[i + 1]]);
  const made = { status: incoming.statusCode, statusText: incoming.statusMessage, headers: pairs };
  return new nativeResponse(empty ? null : Readable.toWeb(incoming), made);
}
