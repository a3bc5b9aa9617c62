// What a function is given, and what becomes of what it gives back.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { gzipSync } from "node:zlib";
import { both, until } from "./harness.mjs";

const echo = `export default { async fetch(request, env, ctx) {
  return Response.json({
    method: request.method, url: request.url, headers: Object.fromEntries(request.headers), body: await request.text(),
    isRequest: request instanceof Request, id: ctx.requestId, user: ctx.user, caller: ctx.caller, left: ctx.remainingMs,
  });
} }`;

both("a request arrives as the outside made it, without what the gateway added", async ({ up }) => {
  const fn = await up(echo);
  const caller = { kind: "user", id: "usr_1", role: "user", email: "a@b.example", claims: { plan: "pro" } };
  const url = "https://shop.example:8443/a%20b/c?d=e&f";
  const answer = await fn.ask("/a%20b/c?d=e&f", { method: "POST", body: "héllo", url, caller, deadline: 5000, headers: { "x-y": "z", "transfer-encoding": "chunked" } });
  const { left, headers, ...rest } = answer.json();
  const { kind, ...user } = caller;
  assert.deepEqual(rest, { method: "POST", url, body: "héllo", isRequest: true, id: "req_1", user, caller });
  assert.ok(left > 3000 && left <= 5000);
  assert.deepEqual(Object.keys(headers).filter((name) => name.startsWith("steading")), []);
  assert.equal(headers["x-y"], "z");
  assert.equal(headers.host, "shop.example");
});

both("nobody, a service and another function are no user", async ({ up }) => {
  const fn = await up(echo);
  const seen = async (caller) => (({ user, caller }) => ({ user, caller }))((await fn.ask("/", { caller })).json());
  assert.deepEqual(await seen(), { user: null, caller: { kind: "anonymous" } });
  assert.deepEqual(await seen({ kind: "service" }), { user: null, caller: { kind: "service" } });
  assert.deepEqual(await seen({ kind: "function", name: "other" }), { user: null, caller: { kind: "function", name: "other" } });
});

both("a bare function, an app with fetch and a class's instance are handlers", async ({ up }) => {
  const sources = [
    "export default (request, env) => new Response(env.NAME);",
    "const app = (request) => { throw new Error('not this'); }; app.fetch = (request, env) => new Response(env.NAME); export default app;",
    "class App { constructor() { this.suffix = ''; } fetch(request, env) { return new Response(env.NAME + this.suffix); } } export default new App();",
    "export async function fetch(request, env) { return new Response(env.NAME); }",
  ];
  for (const source of sources) assert.equal((await (await up(source, { env: { NAME: "n" } })).ask()).text, "n");
  const common = { "index.cjs": "module.exports = { fetch: async (request, env) => new Response(env.NAME) };" };
  assert.equal((await (await up(common, { env: { NAME: "c" } })).ask()).text, "c");
  const compiled = { "index.cjs": "Object.defineProperty(exports, '__esModule', { value: true }); exports.default = { fetch: (request, env) => new Response(env.NAME) };" };
  assert.equal((await (await up(compiled, { env: { NAME: "t" } })).ask()).text, "t");
});

both("variables and secrets are in a frozen env and in process.env", async ({ up }) => {
  const fn = await up(
    `export default (request, env) => {
      "use strict";
      let frozen = false;
      try { env.A = "other"; } catch { frozen = true; }
      return Response.json({ a: env.A, process: process.env.A, db: typeof env.db, frozen, names: Object.keys(env), argv: process.argv.length });
    };`,
    { env: { A: "1", db: "a variable of that name" } },
  );
  assert.deepEqual((await fn.ask()).json(), { a: "1", process: "1", db: "function", frozen: true, names: ["A", "db", "files", "fn", "ai"], argv: 2 });
});

both("a function is where its files are, and its settings files are not the runtime's", async ({ up }) => {
  const fn = await up({
    "index.mjs": "import { readFileSync } from 'node:fs'; export default () => Response.json([readFileSync('data.txt', 'utf8'), process.env.FROM_FILE, globalThis.preloaded, process.env.NODE_ENV]);",
    "data.txt": "data",
    ".env": "FROM_FILE=1",
    "bunfig.toml": 'preload = ["./preload.mjs"]',
    "preload.mjs": "globalThis.preloaded = true;",
  });
  assert.deepEqual((await fn.ask()).json(), ["data", null, null, "production"]);
});

both("answers keep their status, cookies, bytes and emptiness", async ({ up }) => {
  const fn = await up(`export default async (request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/cookies") { const r = new Response("x", { status: 201 }); r.headers.append("set-cookie", "a=1; Path=/"); r.headers.append("set-cookie", "b=2"); return r; }
    if (pathname === "/bytes") return new Response(new Uint8Array([0, 255, 128]), { headers: { "content-type": "image/x" } });
    if (pathname === "/empty") return new Response(null, { status: 204 });
    if (pathname === "/redirect") return Response.redirect("https://shop.example/x", 303);
    if (pathname === "/blob") return new Response(new Blob(["b", "lob"], { type: "text/x" }));
    if (pathname === "/form") { const f = new FormData(); f.set("k", "v"); return new Response(f); }
    if (pathname === "/clone") { const r = new Response("again"); const c = r.clone(); return new Response(await r.text() + await c.text(), r); }
    if (pathname === "/wrap") { const r = Response.json({ a: 1 }); return new Response(r.body, r); }
    if (pathname === "/sub") { class Mine extends Response {} return new Mine("mine"); }
    return new Response("text");
  };`);
  const seen = async (path, method) => {
    const { status, headers, text } = await fn.ask(path, { method });
    return [status, headers["content-type"]?.toLowerCase().replace(" ", "").replace(/boundary=.*/, "boundary"), text];
  };
  const cookies = await fn.ask("/cookies");
  assert.deepEqual([cookies.status, cookies.headers["set-cookie"]], [201, ["a=1; Path=/", "b=2"]]);
  assert.deepEqual([...(await fn.ask("/bytes")).bytes], [0, 255, 128]);
  assert.deepEqual(await seen("/empty"), [204, undefined, ""]);
  const redirect = await fn.ask("/redirect");
  assert.deepEqual([redirect.status, redirect.headers.location], [303, "https://shop.example/x"]);
  assert.deepEqual(await seen("/blob"), [200, "text/x", "blob"]);
  assert.match((await fn.ask("/form")).text, /name="k"\r\n\r\nv/);
  assert.equal((await fn.ask("/clone")).text, "againagain");
  const [status, type, text] = await seen("/wrap");
  assert.deepEqual([status, type.split(";")[0], text], [200, "application/json", '{"a":1}']);
  assert.equal((await fn.ask("/sub")).text, "mine");
  assert.deepEqual(await seen("/", "GET"), [200, "text/plain;charset=utf-8", "text"]);
  const head = await fn.ask("/", { method: "HEAD" });
  assert.deepEqual([head.status, head.text, head.headers["content-length"]], [200, "", "4"]);
});

both("a request is a real one: clones, forms, copies, what is derived", async ({ up }) => {
  const fn = await up(`export default async (request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/form") { const form = await request.formData(); const file = form.get("f"); return Response.json({ k: form.get("k"), file: [file.name, await file.text()] }); }
    if (pathname === "/clone") { const copy = request.clone(); return new Response(await request.text() + await copy.text() + copy.url + request.bodyUsed); }
    if (pathname === "/new") { const copy = new Request(request, { headers: { "x-new": "1" } }); return new Response([copy.method, copy.url, copy.headers.get("x-new"), await copy.text()].join(" ")); }
    if (pathname === "/moved") { const copy = new Request("https://other.example/", request); return new Response([copy.method, copy.url, copy.headers.get("x-a"), await copy.text()].join(" ")); }
    if (pathname === "/twice") { await request.text(); try { await request.text(); } catch (error) { return new Response(error.name + request.bodyUsed); } }
    if (pathname === "/stream") { let size = 0; for await (const part of request.body) size += part.length; return new Response(String(size)); }
    if (pathname === "/bytes") return new Response((await request.arrayBuffer()).byteLength + " " + (request instanceof Request));
    if (pathname === "/none") return Response.json({ body: request.body === null, text: await request.text() });
    class Mine extends Request {} const mine = new Mine(request);
    return new Response(String(mine instanceof Mine) + mine.url + request.redirect + request.signal.aborted);
  };`);
  const body = ['--x\r\ncontent-disposition: form-data; name="k"\r\n\r\nv', '--x\r\ncontent-disposition: form-data; name="f"; filename="a.txt"\r\ncontent-type: text/plain\r\n\r\nfile', "--x--\r\n"].join("\r\n");
  const form = await fn.ask("/form", { method: "POST", body, headers: { "content-type": "multipart/form-data; boundary=x" } });
  assert.deepEqual(form.json(), { k: "v", file: ["a.txt", "file"] });
  const url = "https://shop.example";
  const post = async (path) => (await fn.ask(path, { method: "POST", body: "abc", url: url + path, headers: { "x-a": "a" } })).text;
  assert.equal(await post("/clone"), "abcabchttps://shop.example/clonetrue");
  assert.equal(await post("/new"), "POST https://shop.example/new 1 abc");
  assert.equal(await post("/moved"), "POST https://other.example/ a abc");
  assert.equal(await post("/twice"), "TypeErrortrue");
  assert.equal(await post("/stream"), "3");
  assert.equal(await post("/bytes"), "3 true");
  assert.deepEqual((await fn.ask("/none")).json(), { body: true, text: "" });
  assert.equal(await post("/other"), "truehttps://shop.example/otherfollowfalse");
});

both("CloudBase's main takes JSON, requests and timers", async ({ up }) => {
  const fn = await up({
    "index.cjs": `exports.main = async (event, context) => {
      if (event.path === "/page") return { statusCode: 201, headers: { "content-type": "text/html", "set-cookie": ["a=1", "b=2"] }, body: "<p>" + event.httpMethod + event.queryStringParameters.q };
      if (event.path === "/picture") return { statusCode: 200, isBase64Encoded: true, body: Buffer.from([1, 2, 255]).toString("base64") };
      return { event, id: context.request_id, name: context.function_name, environ: context.environ, user: context.user };
    };`,
  }, { env: { A: "1", B: "2" } });
  const invoked = await fn.ask("/", { kind: "invoke", method: "POST", body: '{"x":1}' });
  assert.deepEqual(invoked.json(), { event: { x: 1 }, id: "req_1", name: "hello", environ: "A=1;B=2", user: null });
  const page = await fn.ask("/page?q=5", { url: "https://shop.example/page?q=5" });
  assert.deepEqual([page.status, page.headers["content-type"], page.headers["set-cookie"], page.text], [201, "text/html", ["a=1", "b=2"], "<p>GET5"]);
  assert.deepEqual([...(await fn.ask("/picture")).bytes], [1, 2, 255]);
  const http = (await fn.ask("/else", { method: "POST", body: "\u0001\u00ff", headers: { "content-type": "application/octet-stream" } })).json();
  assert.deepEqual([http.event.isBase64Encoded, http.event.httpMethod, http.event.path], [true, "POST", "/else"]);
  const timer = await fn.ask("/", { kind: "scheduled", method: "POST", trigger: { name: "nightly", cron: "0 0 * * *", time: "2026-11-22T00:00:00Z" } });
  const told = { Type: "timer", TriggerName: "nightly", Time: "2026-11-22T00:00:00Z" };
  assert.deepEqual(timer.json().event, { ...told, Message: "" });
  for (const [body, message] of [['"text"', "text"], ['{"a":1}', '{"a":1}']]) {
    const trigger = { name: "nightly", time: "2026-11-22T00:00:00Z" };
    assert.deepEqual((await fn.ask("/", { kind: "scheduled", method: "POST", trigger, body })).json().event, { ...told, Message: message });
  }
  assert.deepEqual(fn.ready.handlers, ["main"]);
});

both("main may be an export of a module, beside a default", async ({ up }) => {
  const fn = await up("export const main = async (event) => ({ got: event }); export default { fetch: () => new Response('web') };");
  assert.equal((await fn.ask()).text, "web");
  assert.deepEqual((await fn.ask("/", { kind: "invoke", method: "POST", body: "[1]" })).json(), { got: [1] });
});

both("schedules and events have their handlers, and a missing one is refused", async ({ up }) => {
  const fn = await up(`export default {
    async scheduled(event, env, ctx) { console.log("tick"); return { ...event, id: ctx.requestId }; },
    async event(event) { if (event.type === "row.deleted") return; return event; },
  };`);
  const trigger = { name: "nightly", cron: "0 0 * * *", time: "2026-11-22T00:00:00Z" };
  const tick = await fn.ask("/", { kind: "scheduled", method: "POST", trigger });
  const told = { type: "scheduled", ...trigger, scheduledTime: Date.parse(trigger.time) };
  assert.deepEqual(tick.json(), { ...told, payload: null, attempt: 1, id: "req_1" });
  const again = await fn.ask("/", { kind: "scheduled", method: "POST", trigger: { ...trigger, attempt: 2 }, body: '{"ü":[1]}' });
  assert.deepEqual(again.json(), { ...told, payload: { ü: [1] }, attempt: 2, id: "req_1" });
  assert.equal((await fn.log("tick")).rid, "req_1");
  const made = await fn.ask("/", { kind: "event", method: "POST", trigger: { name: "on-row" }, body: '{"type":"row.created","row":{"id":"1"}}' });
  assert.deepEqual(made.json(), { name: "on-row", type: "row.created", row: { id: "1" } });
  assert.equal((await fn.ask("/", { kind: "event", method: "POST", body: '{"type":"row.deleted"}' })).status, 204);
  const refused = await fn.ask();
  assert.deepEqual([refused.status, refused.headers["steading-fn-outcome"], refused.json().kind], [404, "refused", "no_handler"]);
  assert.match(refused.json().message, /no handler `fetch`.*it has scheduled, event/);
});

both("what a handler throws is told to the gateway and logged, and nothing else ends", async ({ up }) => {
  const fn = await up(`export default async (request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/sync") throw new RangeError("too far", { cause: new Error("the reason") });
    if (pathname === "/text") throw "only text";
    if (pathname === "/nothing") return;
    if (pathname === "/object") return { a: 1 };
    return new Response("fine");
  };`);
  const seen = async (path) => {
    const { status, headers, json } = await fn.ask(path, { id: path });
    const { kind, name, message } = json();
    return [status, headers["steading-fn-outcome"], kind, name, message];
  };
  assert.deepEqual(await seen("/sync"), [500, "threw", "threw", "RangeError", "too far"]);
  assert.match((await fn.ask("/sync")).json().stack, /index\.mjs:3/);
  const line = await fn.log("too far");
  assert.deepEqual([line.level, line.rid], ["error", "/sync"]);
  assert.match(line.text, /the reason/);
  assert.deepEqual(await seen("/text"), [500, "threw", "threw", "Error", "thrown: only text"]);
  assert.match((await seen("/nothing"))[4], /gave back undefined instead of a Response/);
  assert.match((await seen("/object"))[4], /gave back a value of Object instead of a Response/);
  assert.equal((await fn.ask()).text, "fine");
});

both("a Response of another implementation is taken too", async ({ up }) => {
  const fn = await up(`class Other { constructor() { this.status = 202; this.statusText = ""; this.headers = new Headers({ "x-a": "1" }); this.body = new Blob(["other"]).stream(); } }
    export default () => new Other();`);
  const answer = await fn.ask();
  assert.deepEqual([answer.status, answer.headers["x-a"], answer.text], [202, "1", "other"]);
});

both("work that is waited for is counted, and its failure is only logged", async ({ up }) => {
  const fn = await up(`let go; export default (request, env, { waitUntil }) => {
    if (request.url.endsWith("/go")) { go(); return new Response("went"); }
    waitUntil(new Promise((done) => (go = done)).then(() => { throw new Error("after the answer"); }));
    return new Response("answered");
  };`);
  assert.equal((await fn.ask("/", { id: "req_w" })).text, "answered");
  assert.equal((await fn.ping()).waiting, 1);
  await fn.ask("/go");
  assert.equal((await fn.log("after the answer")).rid, "req_w");
  await until(async () => (await fn.ping()).waiting === 0);
});

both("ping tells of the process, and boot what there is", async ({ up, runtime }) => {
  const fn = await up("export default { fetch: () => new Promise(() => {}), scheduled() {} };");
  const pending = fn.ask("/", { open: true }).catch(() => {});
  const ping = await until(async () => {
    const ping = await fn.ping();
    return ping.in_flight === 1 && ping;
  });
  const { rss, heap, uptime_ms, ...rest } = ping;
  assert.deepEqual(rest, { ok: true, draining: false, in_flight: 1, waiting: 0, sockets: 0, served: 1 });
  assert.ok(rss > 1e7 && heap > 1e4 && uptime_ms > 0);
  const boot = (await fn.ask("/", { kind: "boot" })).json();
  assert.deepEqual(boot, fn.ready);
  assert.deepEqual([boot.runtime, boot.handlers], [runtime, ["fetch", "scheduled"]]);
  await fn.kill();
  await pending;
});

both("a function may be a proxy: requests and answers are handed on", async ({ up }) => {
  const upstream = http.createServer(async (request, response) => {
    let body = "";
    for await (const part of request) body += part;
    const packed = gzipSync(JSON.stringify({ method: request.method, url: request.url, a: request.headers["x-a"], body }).padEnd(3000));
    response.writeHead(203, { "content-encoding": "gzip", "content-length": packed.length, "x-up": "1" }).end(packed);
  });
  upstream.on("connection", (stream) => stream.unref()).listen(0, "127.0.0.1").unref();
  await once(upstream, "listening");
  const fn = await up(
    `export default async (request, env) => {
      const { pathname } = new URL(request.url);
      const moved = new Request(env.UPSTREAM + pathname, request);
      if (pathname === "/read") return Response.json(await (await fetch(moved)).json());
      if (pathname === "/length") return new Response("exact", { headers: { "content-length": "3" } });
      return fetch(moved);
    };`,
    { env: { UPSTREAM: `http://127.0.0.1:${upstream.address().port}` } },
  );
  for (const path of ["/read", "/handed"]) {
    const answer = await fn.ask(path, { method: "POST", body: "given", url: `https://shop.example${path}`, headers: { "x-a": "a" } });
    assert.deepEqual(answer.json(), { method: "POST", url: path, a: "a", body: "given" });
    assert.equal(answer.headers["content-encoding"], undefined);
    if (path === "/handed") assert.deepEqual([answer.status, answer.headers["x-up"]], [203, "1"]);
  }
  assert.equal((await fn.ask("/length", { url: "https://shop.example/length" })).text, "exact");
});
