/* Runs one version of one function, in Bun or Node, for the supervisor that started this process in its jail.
 *
 * The program is put together from files, one after another in this order, and needs no package:
 *   Bun    logs.mjs clients.mjs socket.mjs runner.mjs boot.mjs
 *   Node   logs.mjs clients.mjs socket.mjs rfc6455.mjs node.mjs runner.mjs boot.mjs
 * It is run in a directory without tenants' files, by `bun --no-install --no-env-file --no-macros runner.mjs` or
 * `node --enable-source-maps --disable-warning=ExperimentalWarning runner.mjs`; the function finds itself in its own.
 *
 * TRUST. Tenant code runs in this process: it can say whatever the runner says, dial the runner's socket and take its
 * place. So nothing that comes out of here is believed beyond this function itself: `ready` and `failed` are claims,
 * a log line's `rid` counts only if that request was sent to this instance, `ping` numbers only ever shorten this
 * process's own life. The mark below guards against accidents and against text that strangers let a function print.
 *
 * ASSIGNMENT: one JSON document on stdin, until its end. Nothing secret is in the arguments or in the environment.
 *   { entry: "/fn/index.js",          the bundle, a module or CommonJS
 *     sock: "/sock/fn.sock",          where to listen; must not exist
 *     mark: "9f0c…",                  [A-Za-z0-9]{16,64}, new for each start
 *     env: { NAME: "value" },         variables and secrets
 *     limits: { boot_ms, drain_ms, log_bytes_per_s, socket_message_bytes, socket_buffer_bytes, body_bytes, memory_mib, wall_ms },
 *     meta: { env, function, version, url },   slug, name, id, and the app's public origin
 *     platform: { sock: "/sock/platform.sock" } }
 *
 * OUTPUT: fd 1, lines. One of ours is `\x1e<mark> <json>\n`, at most 8 KiB of log (`failed` may be 12 KiB); what
 * stands before `\x1e<mark> ` on a line, and every other line, is text that tenant code wrote to fd 1 or 2 by itself.
 *   { t, level, rid?, text, cut? }    log: ms since 1970; debug|info|warn|error; request id; cut: characters left out
 *   { ready: { runtime, version, handlers: ["fetch","scheduled","event","main"], pid, boot_ms } }   once, when it listens
 *   { failed: { kind, message, hint, name?, stack?, file?, line?, column?, frame? } }                once, then it exits with 80
 * `kind`: syntax, missing_module, missing_export, no_export, module_kind, circular, throw, timeout, exit, listen.
 *
 * EXIT CODES: 0 drained after SIGTERM; 80 failed (said so before); 81 uncaught exception; 82 unhandled rejection (what
 * was in flight had a second to finish); 83 tenant code called process.exit; 84 no assignment; 85 drained, but
 * drain_ms passed with work left. Anything else, and signals, are the runtime's own death.
 *
 * REQUESTS: HTTP/1.1 on `sock`. Reserved request headers begin with `steading-fn-`; the gateway strips them from what
 * comes from outside, sets them itself, and tenant code does not see them:
 *   steading-fn-kind      http (default) | invoke | scheduled | event | boot | ping
 *   steading-fn-request   the request's id; on every kind but boot and ping
 *   steading-fn-deadline  ms that are left
 *   steading-fn-url       the URL as the outside sees it, for http
 *   steading-fn-caller    ASCII JSON { kind: "user"|"service"|"function", id?, role?, email?, claims?, name? }; none: anonymous
 *   steading-fn-trigger   ASCII JSON; scheduled: { name, cron, time, attempt }; event: { type, time, attempt }
 * Bodies: http as it comes; invoke, event and scheduled (its payload) JSON. Answers: http the handler's; invoke, scheduled, event 200 with JSON
 * or 204. ping: 200 { ok, draining, in_flight, waiting, sockets, served, rss, heap, uptime_ms }. boot: 200, as `ready`.
 * Where the runner answers in the handler's place it says why in `steading-fn-outcome`: `threw` (500; the body is JSON
 * { kind, name, message, stack }, for the owner and not for the outside), `refused` (404, no handler for this kind).
 * The gateway strips `steading-fn-*` from answers too. A 101 answers `ctx.upgrade`.
 *
 * PLATFORM: the clients of env and ctx ask HTTP/1.1 on `platform.sock`, on the data plane's own paths (/_/db/…, /_/batch,
 * /_/files/…, /_/fn/{name}…) and /v1/…, without a token: whoever asks there is this function. They add
 *   steading-fn-request   the request that asks, where there is one: for logs, and for
 *   steading-fn-rights    `caller`: with the rights of whoever made that request, instead of the function's own.
 * The host takes that only for a request that it has sent to this instance and whose work is not over.
 *
 * SIGTERM: stops listening, lets what is in flight and `waitUntil` finish, ends sockets with 1001, at most drain_ms.
 */

const PREFIX = "steading-fn-";
const EXIT = { drained: 0, failed: 80, uncaught: 81, rejected: 82, exited: 83, unassigned: 84, overdue: 85 };
/** How long what is in flight may go on after an unhandled rejection. */
const LAST_MS = 1000;
const OUTCOME = `${PREFIX}outcome`;
/** Headers that are about the connection, or the runner's own. */
const NOT_SENT = new Set(["connection", "keep-alive", "transfer-encoding", "upgrade", UPGRADE]);

/** The runtime's class, or the light one for Node; tenant code may put another one in the global's place. */
let Response = globalThis.Response;

/** This process: `server` once it listens, `handlers` once the module is there. */
const self = { assignment: null, env: null, handlers: null, server: null, ready: null, served: 0, waiting: 0, ending: null };

/** What a handler is told of its request. Also `this` request for the log, and for what it asks of the platform. */
class Context {
  #request;
  #said;
  #until;
  #signal = null;
  #socket = null;
  #clients = {};

  constructor(request, said) {
    this.#request = request;
    this.#said = said;
    this.#until = said.deadline === undefined ? Infinity : now() + Number(said.deadline);
    this.requestId = said.request ?? "";
  }

  /** Keeps the function alive for work that goes on after the answer. */
  waitUntil = (promise) => {
    self.waiting++;
    Promise.resolve(promise)
      .catch((error) => log("error", `work that was waited for failed: ${inspected(error)}`, this.requestId))
      .finally(() => void self.waiting--);
  };

  /** Who asks: `{ kind: "anonymous" }`, or of kind user, service or function. */
  get caller() {
    const caller = this.#said.caller ? JSON.parse(this.#said.caller) : { kind: "anonymous" };
    Object.defineProperty(this, "caller", { value: caller, enumerable: true });
    return caller;
  }

  /** The user who asks: `{ id, role, email?, claims? }`; null where it is nobody or no user. */
  get user() {
    const { kind, ...user } = this.caller;
    return kind === "user" ? user : null;
  }

  /** Ends where the client has gone, or the time is over. */
  get signal() {
    const left = this.remainingMs;
    if (!isBun) this.#signal ??= NodeRequest.signal(this.#request, left);
    else if (left === Infinity) this.#signal ??= this.#request.signal;
    else this.#signal ??= AbortSignal.any([this.#request.signal, AbortSignal.timeout(Math.min(left, 2 ** 31 - 1))]);
    return this.#signal;
  }

  /** Milliseconds until the deadline. */
  get remainingMs() {
    return Math.max(0, this.#until - now());
  }

  /** Rows, files and functions with the rights of who asks. */
  get db() {
    return (this.#clients.db ??= dbOf(self.assignment, this));
  }
  get files() {
    return (this.#clients.files ??= filesOf(self.assignment, this));
  }
  get fn() {
    return (this.#clients.fn ??= fnOf(self.assignment, this));
  }

  /** Makes a WebSocket of the request: listen on `socket`, and give back `response`. */
  upgrade = (request = this.#request, { protocol, headers } = {}) => {
    if (request?.headers.get("upgrade")?.toLowerCase() !== "websocket") {
      throw new TypeError("this request does not ask for a WebSocket (no header `upgrade: websocket`)");
    }
    if (this.#socket) throw new TypeError("this request has been upgraded already");
    this.#socket = new ServerSocket(this, request.url.replace(/^http/, "ws"), protocol ?? "");
    const all = new Headers(headers);
    if (protocol) all.set("sec-websocket-protocol", protocol);
    // A header and not a mark on the object: frameworks copy responses.
    all.set(UPGRADE, this.requestId);
    return { socket: this.#socket, response: new Response(null, { headers: all }) };
  };

  /** The socket that `response` opens, for the server. */
  static socket(context, response) {
    const socket = context.#socket;
    if (!socket) return null;
    if (response.headers.has(UPGRADE)) return socket;
    socket.closed(1006, "");
    return null;
  }
}

/** Sockets by the response that opens them. */
const opening = new WeakMap();
const upgraded = (response) => opening.get(response) ?? null;

/** Answers one request of the gateway. Never throws; a promise only where the handler gives one. */
function respond(request, said) {
  const kind = said.kind ?? "http";
  if (kind === "ping") return answer(200, health());
  if (kind === "boot") return answer(200, self.ready);
  self.served++;
  const context = new Context(request, said);
  return requests.run(context, () => {
    try {
      const result = handle(kind, request, context, said);
      if (typeof result?.then !== "function") return finished(kind, result, context);
      return Promise.resolve(result).then((value) => finished(kind, value, context)).catch((error) => threw(error));
    } catch (error) {
      return threw(error);
    }
  });
}

function handle(kind, request, context, said) {
  const { fetch, main } = self.handlers;
  if (kind === "http") return fetch ? fetch(request, self.env, context) : main ? asEvent(request, context) : refused(kind);
  if (kind === "invoke") {
    if (main) return request.text().then((text) => main(text === "" ? {} : JSON.parse(text), eventContext(context)));
    return fetch ? Promise.resolve(fetch(request, self.env, context)).then(web) : refused(kind);
  }
  const trigger = said.trigger ? JSON.parse(said.trigger) : {};
  if (kind === "scheduled") {
    const { scheduled } = self.handlers;
    if (!scheduled && !main) return refused(kind);
    return request.text().then((text) => {
      const payload = text === "" ? null : JSON.parse(text);
      const { name, cron, attempt = 1, time = new Date(now()).toISOString() } = trigger;
      const event = { type: "scheduled", name, cron, time, scheduledTime: Date.parse(time), payload, attempt };
      if (scheduled) return scheduled(event, self.env, context);
      const message = typeof payload === "string" ? payload : text;
      return main({ Type: "timer", TriggerName: name, Time: time, Message: message }, eventContext(context));
    });
  }
  const { event } = self.handlers;
  if (kind !== "event" || !event) return refused(kind);
  return request.text().then((text) => event({ ...trigger, ...parsed(text) }, self.env, context));
}

const needed = { http: "fetch", invoke: "main or fetch", scheduled: "scheduled", event: "event" };

function refused(kind) {
  const message = needed[kind]
    ? `the function has no handler \`${needed[kind]}\` for what comes by ${kind}; it has ${Object.keys(self.handlers).join(", ")}`
    : `no such kind of request: ${kind}`;
  return answer(404, { kind: "no_handler", message }, { [OUTCOME]: "refused" });
}

/** The response for what a handler gave back. */
function finished(kind, value, context) {
  if (kind !== "http" && !(value instanceof Response)) return value === undefined ? new Response(null, { status: 204 }) : answer(200, value);
  const response = web(value);
  const socket = Context.socket(context, response);
  if (socket) opening.set(response, socket);
  return response;
}

/** A response, also one of another implementation of the web's classes, as packages bring along. */
function web(value) {
  if (value instanceof Response && value.status >= 200) return value;
  if (typeof value?.status === "number" && typeof value.headers?.get === "function" && value.status >= 200) {
    return new Response(value.body, { status: value.status, statusText: value.statusText, headers: [...value.headers] });
  }
  const got = value === null || value === undefined ? String(value) : `a value of ${value.constructor?.name ?? typeof value}`;
  throw new TypeError(`the handler gave back ${got} instead of a Response: return new Response(…) or Response.json(…)`);
}

function threw(error) {
  log("error", `the handler threw: ${inspected(error)}`);
  return answer(500, { kind: "threw", ...described(error) }, { [OUTCOME]: "threw" });
}

function answer(status, value, headers) {
  return new Response(stringify(value) ?? "null", { status, headers: { "content-type": "application/json", ...headers } });
}

/** A request for `exports.main`, and what it gives back as a response. */
async function asEvent(request, context) {
  const url = new URL(request.url);
  const bytes = new Uint8Array(await request.arrayBuffer());
  const type = request.headers.get("content-type") ?? "";
  const isText = bytes.length === 0 || /^text\/|json|xml|javascript|x-www-form-urlencoded/i.test(type);
  const body = isText ? new TextDecoder().decode(bytes) : Buffer.from(bytes).toString("base64");
  const headers = Object.fromEntries(request.headers);
  const event = {
    path: url.pathname,
    httpMethod: request.method,
    headers,
    queryStringParameters: Object.fromEntries(url.searchParams),
    body,
    isBase64Encoded: !isText,
    requestContext: { requestId: context.requestId, path: url.pathname, httpMethod: request.method },
  };
  const value = await self.handlers.main(event, eventContext(context));
  if (value instanceof Response) return value;
  if (value === undefined) return new Response(null, { status: 204 });
  if (typeof value?.statusCode !== "number") return typeof value === "string" ? new Response(value) : answer(200, value);
  const { statusCode: status, body: given = "", isBase64Encoded } = value;
  const sent = new Headers();
  for (const [name, one] of Object.entries({ ...value.headers, ...value.multiValueHeaders })) {
    for (const each of Array.isArray(one) ? one : [one]) sent.append(name, String(each));
  }
  if (!sent.has("content-type") && typeof given !== "string") sent.set("content-type", "application/json");
  const text = typeof given === "string" ? given : stringify(given);
  const isEmpty = [204, 205, 304].includes(status);
  return new Response(isEmpty ? null : isBase64Encoded ? Buffer.from(text, "base64") : text, { status, headers: sent });
}

/** The second argument of `exports.main`: what CloudBase gives, and what ours has. */
function eventContext(context) {
  const { meta = {}, limits = {}, env = {} } = self.assignment;
  const told = {
    request_id: context.requestId,
    function_name: meta.function,
    function_version: meta.version,
    namespace: meta.env,
    memory_limit_in_mb: limits.memory_mib,
    time_limit_in_ms: limits.wall_ms,
    getRemainingTimeInMillis: () => context.remainingMs,
    env: self.env,
    user: context.user,
  };
  Object.defineProperty(told, "environ", { get: () => Object.entries(env).map((pair) => pair.join("=")).join(";"), enumerable: true });
  Object.defineProperty(told, "environment", { get: () => stringify(env), enumerable: true });
  for (const name of ["requestId", "waitUntil", "caller", "signal", "db", "files", "fn"]) {
    Object.defineProperty(told, name, { get: () => context[name], enumerable: true });
  }
  return told;
}

function health() {
  const { rss, heapUsed } = process.memoryUsage();
  return {
    ok: true,
    draining: self.ending !== null,
    // This very request is one of them.
    in_flight: self.server.inFlight() - 1,
    waiting: self.waiting,
    sockets: sockets.size,
    served: self.served,
    rss,
    heap: heapUsed,
    uptime_ms: Math.round(process.uptime() * 1000),
  };
}
