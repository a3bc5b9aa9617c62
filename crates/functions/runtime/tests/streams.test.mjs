// Bodies that come and go piece by piece, clients that leave, and the end of an instance.

import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { both, until } from "./harness.mjs";

both("events arrive one by one, and the head before the first", async ({ up, runtime }) => {
  const fn = await up(`let go; export default (request) => {
    if (request.url.endsWith("/go")) { go(); return new Response("went"); }
    const encoder = new TextEncoder();
    return new Response(new ReadableStream({
      async start(controller) {
        for (let i = 0; i < 3; i++) { await new Promise((done) => (go = done)); controller.enqueue(encoder.encode("data: " + i + "\\n\\n")); }
        controller.close();
      },
    }), { headers: { "content-type": "text/event-stream" } });
  };`);
  const answer = await fn.ask("/", { open: true });
  assert.equal(answer.headers["content-type"], "text/event-stream");
  let text = "";
  answer.setEncoding("utf8").on("data", (part) => (text += part));
  // Bun keeps the head back until there is something of the body; a comment is no event.
  for (let i = 0, wanted = runtime === "bun" ? ":\n\n" : ""; i < 3; i++) {
    await fn.ask("/go");
    wanted += `data: ${i}\n\n`;
    await until(() => text === wanted, wanted);
  }
  await until(() => answer.complete);
});

both("both ways at once: a body is answered while it comes", async ({ up }) => {
  const fn = await up(`export default (request) => new Response(request.body.pipeThrough(new TransformStream({
    transform(part, controller) { controller.enqueue(new TextEncoder().encode(new TextDecoder().decode(part).toUpperCase())); } })));`);
  let request;
  const answer = await fn.ask("/", { method: "POST", open: true, body: (asked) => void (request = asked).write("first ") });
  let text = "";
  answer.setEncoding("utf8").on("data", (part) => (text += part));
  await until(() => text === "FIRST ");
  request.end("second");
  await until(() => text === "FIRST SECOND" && answer.complete);
});

both("text pieces and async iterables are bodies too", async ({ up }) => {
  const fn = await up(`export default (request) => request.url.endsWith("/iterable")
    ? new Response((async function* () { yield new TextEncoder().encode("a"); yield new TextEncoder().encode("b"); })())
    : new Response(new ReadableStream({ start(c) { c.enqueue(new Uint8Array([97])); c.enqueue(new TextEncoder().encode("é")); c.close(); } }));`);
  assert.equal((await fn.ask("/iterable")).text, "ab");
  assert.equal((await fn.ask("/")).text, "aé");
});

both("a large answer waits for a client that reads slowly", async ({ up }) => {
  const fn = await up(`let sent = 0; export default (request) => {
    if (request.url.endsWith("/sent")) return new Response(String(sent));
    const part = new Uint8Array(1 << 20);
    return new Response(new ReadableStream({ pull(c) { if (sent === 200) return c.close(); sent++; c.enqueue(part); } }, { highWaterMark: 1, size: () => 1 }));
  };`);
  const answer = await fn.ask("/", { open: true });
  answer.pause();
  let before = -1;
  const sent = await until(async () => {
    const now = Number((await fn.ask("/sent")).text);
    await new Promise((go) => setTimeout(go, 100));
    if (now === before) return now;
    before = now;
  });
  assert.ok(sent < 60, `${sent} MiB were made for somebody who does not read`);
  let size = 0;
  for await (const part of answer) size += part.length;
  assert.equal(size, 200 << 20);
  assert.ok((await fn.ping()).rss < 400e6);
});

both("a large body goes through", async ({ up }) => {
  const fn = await up("export default async (request) => new Response(await request.arrayBuffer());");
  const body = Buffer.alloc(5 << 20, "abcdefg");
  assert.ok((await fn.ask("/", { method: "POST", body })).bytes.equals(body));
});

both("a client that leaves ends the signal and cancels the stream", async ({ up }) => {
  const fn = await up(`export default (request, env, ctx) => {
    ctx.signal.addEventListener("abort", () => console.log("signal", ctx.requestId));
    request.signal.addEventListener("abort", () => console.log("request's signal", ctx.requestId));
    if (request.url.endsWith("/wait")) return new Promise(() => {});
    return new Response(new ReadableStream({ start(c) { c.enqueue(new Uint8Array([1])); }, cancel() { console.log("cancelled", ctx.requestId); } }));
  };`);
  const answer = await fn.ask("/", { open: true, id: "streamed" });
  await once(answer, "data");
  answer.destroy();
  await fn.log("cancelled streamed");
  await fn.log(/^signal streamed/);
  const stop = new AbortController();
  fn.ask("/wait", { id: "waiting", signal: stop.signal }).catch(() => {});
  await until(async () => (await fn.ping()).in_flight === 1);
  stop.abort();
  await fn.log(/^signal waiting/);
  await fn.log("request's signal waiting");
  await until(async () => (await fn.ping()).in_flight === 0);
});

both("the deadline ends the signal", async ({ up }) => {
  const fn = await up(`export default async (request, env, ctx) => {
    await new Promise((done) => ctx.signal.addEventListener("abort", done));
    return new Response(ctx.signal.reason.name);
  };`);
  assert.equal((await fn.ask("/", { deadline: 50 })).text, "TimeoutError");
});

both("a stream that fails breaks its own answer off and is logged", async ({ up }) => {
  const fn = await up(`export default (request, env, ctx) => request.url.endsWith("/fine") ? new Response("fine") : new Response(new ReadableStream({
    async start(c) { c.enqueue(new TextEncoder().encode("part")); await new Promise((go) => setTimeout(go, 20)); c.error(new Error("no more")); } }));`);
  const answer = await fn.ask("/", { open: true });
  let failed = false;
  try {
    for await (const part of answer) void part;
  } catch {
    failed = true;
  }
  assert.ok(failed || !answer.complete, "the answer looks whole");
  assert.equal((await fn.log("no more")).rid, "req_1");
  assert.equal((await fn.ask("/fine")).text, "fine");
});

both("head and small body leave in one piece", async ({ up }) => {
  const fn = await up("export default () => new Response('small');");
  const stream = net.connect(fn.sock);
  stream.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
  const [first] = await once(stream, "data");
  assert.match(first.toString(), /^HTTP\/1\.1 200[^]*\r\n\r\nsmall$/);
  stream.destroy();
});

both("SIGTERM: nothing new, what is in flight and waited for finishes, exit 0", async ({ up }) => {
  const fn = await up(`let release; const held = new Promise((done) => (release = done)); export default async (request, env, ctx) => {
    if (request.url.endsWith("/wait")) { ctx.waitUntil(new Promise((go) => setTimeout(go, 300)).then(() => console.log("afterwards"))); return new Response("quick"); }
    process.once("SIGTERM", () => setTimeout(release, 150)); console.log("held"); await held; return new Response("slow");
  };`);
  await fn.ask("/wait");
  const slow = fn.ask("/slow");
  await fn.log("held");
  fn.process.kill("SIGTERM");
  await until(() => new Promise((done) => net.connect(fn.sock).on("error", () => done(true)).on("connect", function () { this.destroy(); done(false); })), "the refusal");
  assert.equal((await slow).text, "slow");
  assert.equal(await fn.exit, 0);
  assert.ok(fn.logs.some(({ text }) => text === "afterwards"));
});

both("SIGTERM: idle connections hold nothing up", async ({ up }) => {
  const fn = await up("export default () => new Response('x');");
  const stream = net.connect(fn.sock);
  stream.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
  await once(stream, "data");
  const begun = Date.now();
  fn.process.kill("SIGTERM");
  assert.equal(await fn.exit, 0);
  assert.ok(Date.now() - begun < 1000);
  stream.destroy();
});

both("SIGTERM: what does not finish is left after drain_ms, exit 85", async ({ up }) => {
  const fn = await up("export default () => new Promise(() => {});", { limits: { drain_ms: 200 } });
  fn.ask().catch(() => {});
  await until(async () => (await fn.ping()).in_flight === 1);
  fn.process.kill("SIGTERM");
  assert.equal(await fn.exit, 85);
});
