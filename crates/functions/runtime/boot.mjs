// From the assignment to a server: the module's handlers, what fails on the way, Bun's server, and the end.

const RESERVED = ["kind", "request", "deadline", "url", "caller", "trigger"];

/** Responses whose bodies come piece by piece. Bun says nothing where one fails, and keeps the head back until the first. */
const streamed = new WeakSet();

/** Lets Bun's tenants make responses that are known to be streamed. */
function watchResponses() {
  const native = globalThis.Response;
  const watched = new Proxy(native, {
    construct(target, given, made) {
      const response = Reflect.construct(target, given, made === watched ? target : made);
      const [body] = given;
      if (typeof body === "object" && (body?.getReader || body?.[Symbol.asyncIterator])) streamed.add(response);
      return response;
    },
  });
  globalThis.Response = watched;
}

/** The same body, with its failure logged and, for events, something to begin with where the first one takes its time. */
function watchedBody(response, rid) {
  const reader = response.body.getReader();
  const isEvents = response.headers.get("content-type")?.startsWith("text/event-stream");
  return new ReadableStream({
    type: "direct",
    async pull(out) {
      try {
        let next = reader.read();
        const isWaiting = Symbol("waiting");
        if (isEvents && (await Promise.race([next, new Promise((done) => setImmediate(done, isWaiting))])) === isWaiting) {
          out.write(":\n\n");
          await out.flush();
        }
        for (;;) {
          const { done, value } = await next;
          if (done) break;
          await out.write(value);
          await out.flush();
          next = reader.read();
        }
        out.close();
      } catch (error) {
        log("error", `the body of an answer failed: ${inspected(error)}`, rid);
        out.close(error);
      }
    },
    cancel: (reason) => reader.cancel(reason),
  });
}

/** The same response, with its body watched and without what `fetch` leaves of the packed body that it has unpacked. */
function handedOn(response, rid) {
  const { status, statusText } = response;
  const headers = new Headers(response.headers);
  for (const name of NOT_SENT) headers.delete(name);
  if (response.url !== "" && headers.has("content-encoding")) {
    headers.delete("content-encoding");
    headers.delete("content-length");
  }
  return new Response(response.body && watchedBody(response, rid), { status, statusText, headers });
}

/** Serves on the socket, in Bun, whose web classes are what functions get. */
function serveBun(path, limits) {
  const give = (response, said, native, server) => {
    const socket = upgraded(response);
    if (!socket) return streamed.has(response) || response.url !== "" ? handedOn(response, said.request) : response;
    const headers = new Headers(response.headers);
    headers.delete(UPGRADE);
    if (server.upgrade(native, { data: socket, headers })) return undefined;
    socket.closed(1006, "");
    return new Response("this is no handshake of a WebSocket (RFC 6455)", { status: 426, headers: { "sec-websocket-version": "13" } });
  };
  const server = Bun.serve({
    unix: path,
    development: false,
    // The host on the other end keeps the times and the sizes.
    idleTimeout: 0,
    maxRequestBodySize: limits.body_bytes ?? Number.MAX_SAFE_INTEGER,
    fetch(native, server) {
      const said = {};
      const { headers } = native;
      for (const name of RESERVED) {
        const value = headers.get(PREFIX + name);
        if (value === null) continue;
        said[name] = value;
        headers.delete(PREFIX + name);
      }
      const isMoved = said.url !== undefined && said.url !== native.url;
      const result = respond(isMoved ? new Request(said.url, native) : native, said);
      return result instanceof Promise ? result.then((response) => give(response, said, native, server)) : give(result, said, native, server);
    },
    error(error) {
      log("error", `an answer could not be sent: ${inspected(error)}`);
      return answer(500, { kind: "threw", ...described(error) }, { [OUTCOME]: "threw" });
    },
    websocket: {
      maxPayloadLength: frames.message,
      backpressureLimit: frames.waiting,
      closeOnBackpressureLimit: true,
      idleTimeout: SILENCE_MS / 1000,
      open(ws) {
        ws.binaryType = "arraybuffer";
        ws.data.opened({
          send: (data) => void ws.send(data),
          close: (code, reason) => ws.close(code, reason),
          waiting: () => ws.getBufferedAmount(),
        });
      },
      message: (ws, data) => ws.data.message(data),
      close: (ws, code, reason) => ws.data.closed(code, reason),
    },
  });
  return { inFlight: () => server.pendingRequests, stop: () => void server.stop() };
}

/** What a module offers, by the name of what it handles. */
function handlersOf(module) {
  let own = module.default ?? module;
  // CommonJS that was compiled from a module has its default one step further in.
  if (own.__esModule && own.default) own = own.default;
  const method = (name) => {
    const owner = [own, module.default, module].find((owner) => typeof owner?.[name] === "function");
    return owner && owner[name].bind(owner);
  };
  const isClass = typeof own === "function" && /^class\b/.test(Function.prototype.toString.call(own));
  const isListener = typeof own === "function" && typeof own.listen === "function";
  const bare = typeof own === "function" && !isClass && !isListener ? own : undefined;
  const all = { fetch: method("fetch") ?? bare, scheduled: method("scheduled"), event: method("event"), main: method("main") };
  const handlers = Object.fromEntries(Object.entries(all).filter(([, handler]) => handler));
  if (Object.keys(handlers).length > 0) return handlers;
  const names = Object.keys(module).join(", ") || "nothing";
  let hint = "write `export default { async fetch(request, env, ctx) { return new Response(…) } }`, or `exports.main = async (event, context) => …`";
  if (isListener || typeof own.callback === "function" || typeof own.inject === "function") {
    hint = "an app that listens by itself (Express, Koa, Fastify) is deployed as a service; as a function take one with `fetch`, such as Hono";
  } else if (isClass) hint = "export an instance of the class, or an object with `fetch`";
  else if (typeof module.handler === "function") hint = "rename `handler` to `main` (CloudBase's shape), or export a default `fetch`";
  throw Object.assign(new TypeError(`the module exports no handler: it exports ${names}`), { failed: { kind: "no_export", hint } });
}

const MODULE_KIND = /(require|module|exports|__dirname|__filename) is not defined|Cannot use import statement|import statement with CommonJS|Unexpected (token|keyword) '?export|'import\.meta' outside|require\(\) of ES Module|require\(\) cannot be used on an ESM/;
const HINTS = {
  syntax: "correct the source and deploy again",
  missing_module: "add the package to package.json, or correct the path of the import",
  missing_export: "import a name that the other module exports",
  module_kind: "use either `import`/`export` or `require`/`module.exports` throughout a file; the ending .cjs or .mjs says which",
  circular: "two modules import each other and one uses the other before it is there: move what both need into a third, or use it inside a function",
  throw: "code at the top of a module failed: move what may fail into the handler, or check that the variables and secrets it reads are set",
  timeout: "code at the top of a module did not finish: move long work into the handler",
  exit: "do not call process.exit while the module loads",
  listen: "the socket's directory must be there, and the socket not",
};

/** What an agent is told of an error that kept the module from loading. */
function failureOf(error) {
  const { name, code, stack } = error instanceof Error ? error : {};
  const text = String(error?.message ?? error);
  const build = [error, ...(error?.errors ?? [])].find((one) => one?.name === "BuildMessage");
  // `JSON.parse` throws syntax errors too: those have frames of the function, and no parser's.
  const isParsers = name === "SyntaxError" && (stack === undefined || /compileSourceTextModule|wrapSafe|^(file:|\/)\S+:\d+\n/.test(stack));
  let kind = "throw";
  if (/MODULE_NOT_FOUND|PACKAGE_PATH_NOT_EXPORTED|UNSUPPORTED_DIR_IMPORT|UNKNOWN_BUILTIN/.test(code ?? "") || name === "ResolveMessage") kind = "missing_module";
  else if (/does not provide an export named|Export named .* not found/.test(text)) kind = "missing_export";
  else if (MODULE_KIND.test(build?.message ?? text)) kind = "module_kind";
  else if (build || isParsers) kind = "syntax";
  else if (name === "ReferenceError" && /before initialization/.test(text)) kind = "circular";
  const { file, line, column, lineText } = build?.position ?? {};
  const frame = lineText && `${line} | ${lineText.slice(0, 300)}\n${" ".repeat(`${line} | `.length + Math.min(column, 300) - 1)}^`;
  const place = { file, line, column, frame };
  return { kind, hint: HINTS[kind], ...described(error), ...(build && { message: build.message }), ...place, ...error?.failed };
}

/** Says why there is no function, and ends. */
function fail(failure) {
  say({ failed: failure });
  exit(EXIT.failed);
}

/** Ends with `code` when everything has finished, at the latest after `ms`. */
function end(code, ms) {
  if (self.ending !== null) return;
  self.ending = code;
  if (!self.server) exit(code);
  self.server.stop();
  for (const socket of sockets) socket.end(1001, "the function is going away");
  setTimeout(() => exit(code === EXIT.drained ? EXIT.overdue : code), ms);
  const isIdle = () => self.server.inFlight() === 0 && self.waiting === 0 && sockets.size === 0;
  setInterval(() => isIdle() && exit(code), 5);
  if (isIdle()) exit(code);
}

/** What tenant code does to the process as a whole. */
function watchProcess(limits) {
  process.on("SIGTERM", () => end(EXIT.drained, limits.drain_ms ?? 10_000));
  process.on("uncaughtException", (error) => {
    if (!self.ready) fail(failureOf(error));
    log("error", `uncaught exception: ${inspected(error)}`);
    exit(EXIT.uncaught);
  });
  let rejections = 0;
  process.on("unhandledRejection", (error) => {
    if (!self.ready) fail(failureOf(error));
    // Thousands may come at once; the first ones say what is wrong.
    if (++rejections <= 5) log("error", `unhandled rejection: ${inspected(error)}`);
    end(EXIT.rejected, LAST_MS);
  });
  process.on("exit", () => rejections > 5 && log("error", `${rejections - 5} more unhandled rejections`));
  process.exit = (code = 0) => {
    const message = `the function called process.exit(${code})`;
    if (!self.ready) fail({ kind: "exit", message, hint: HINTS.exit });
    log("error", message);
    exit(EXIT.exited);
  };
}

/** Variables and secrets by name, and the clients; a variable cannot take a client's name. */
function envOf(assignment) {
  const env = { ...assignment.env };
  const clients = { db: dbOf, files: filesOf, fn: fnOf, ai: aiOf };
  for (const [name, make] of Object.entries(clients)) {
    let made = null;
    Object.defineProperty(env, name, { get: () => (made ??= make(assignment)), enumerable: true });
  }
  return Object.freeze(env);
}

async function start() {
  if (!isBun) builtin("http");
  const text = isBun ? await Bun.stdin.text() : builtin("fs").readFileSync(0, "utf8");
  const assignment = parsed(text);
  const { entry, sock, mark, limits = {} } = assignment ?? {};
  if (typeof entry !== "string" || typeof sock !== "string" || !/^[A-Za-z0-9]{16,64}$/.test(mark)) {
    put("no assignment on stdin: a JSON document with entry, sock and mark");
    exit(EXIT.unassigned);
  }
  self.assignment = assignment;
  voice.mark = mark;
  voice.perSecond = voice.left = limits.log_bytes_per_s ?? voice.perSecond;
  frames.message = limits.socket_message_bytes ?? frames.message;
  frames.waiting = limits.socket_buffer_bytes ?? frames.waiting;
  captureOutput();
  watchProcess(limits);
  if (isBun) watchResponses();
  else lightenNode();
  Response = globalThis.Response;
  process.env.NODE_ENV ??= "production";
  Object.assign(process.env, assignment.env);
  // Not before: Bun takes settings from the directory that it is started in, and those of tenants are in theirs.
  process.chdir(entry.replace(/[^/]*$/, ""));
  self.env = envOf(assignment);
  const boot_ms = limits.boot_ms ?? 10_000;
  const late = setTimeout(() => fail({ kind: "timeout", message: `the module did not load within ${boot_ms} ms (limit boot_ms)`, hint: HINTS.timeout }), boot_ms);
  try {
    self.handlers = handlersOf(await import(`file://${encodeURI(entry)}`));
  } catch (error) {
    fail(failureOf(error));
  }
  clearTimeout(late);
  // Whoever dials is another user; nobody else gets to where the socket is.
  const mask = process.umask(0);
  try {
    self.server = isBun ? serveBun(sock, limits) : await serveNode(sock, respond);
  } catch (error) {
    fail({ kind: "listen", message: `the socket cannot be listened on: ${error.message}`, hint: HINTS.listen });
  }
  process.umask(mask);
  const runtime = isBun ? "bun" : "node";
  const version = isBun ? Bun.version : process.versions.node;
  self.ready = { runtime, version, handlers: Object.keys(self.handlers), pid: process.pid, boot_ms: Math.round(process.uptime() * 1000) };
  say({ ready: self.ready });
}

start();
