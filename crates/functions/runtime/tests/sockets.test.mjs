// WebSockets: the browser's events for functions, RFC 6455 for whoever is on the other end.

import assert from "node:assert/strict";
import { both, Socket, until } from "./harness.mjs";

const echo = `export default (request, env, ctx) => {
  if (request.headers.get("upgrade") !== "websocket") return new Response("plain");
  const { socket, response } = ctx.upgrade(request, { protocol: "chat" });
  socket.binaryType = "arraybuffer";
  socket.addEventListener("open", () => console.log("open", socket.readyState, socket.url));
  socket.onmessage = (event) => {
    const { data } = event;
    if (data === "bye") return socket.close(4001, "so long");
    if (data === "throw") throw new Error("in a listener");
    socket.send(typeof data === "string" ? "echo " + data : data);
  };
  socket.addEventListener("close", ({ code, reason, wasClean }) => console.log("close", code, reason, wasClean, socket.readyState));
  return response;
};`;
const limits = { socket_message_bytes: 100_000, socket_buffer_bytes: 1 << 20 };

both("text, bytes, fragments and pings, in the request's own log", async ({ up }) => {
  const fn = await up(echo, { limits });
  const socket = await Socket.open(fn, "/room?x=1", { "steading-fn-url": "https://shop.example/room?x=1", "sec-websocket-protocol": "chat" });
  assert.match(socket.head, /^HTTP\/1\.1 101 /);
  assert.match(socket.head, /sec-websocket-protocol: chat/i);
  assert.doesNotMatch(socket.head, /steading-fn/);
  const open = await fn.log("open");
  assert.deepEqual([open.text, open.rid], ["open 1 wss://shop.example/room?x=1", "req_ws"]);
  socket.text("hé");
  const { text, masked, final } = await socket.next(1);
  assert.deepEqual({ text, masked, final }, { text: "echo hé", masked: false, final: true });
  socket.frame(2, Buffer.alloc(70_000, 7));
  assert.ok((await socket.next(2)).data.equals(Buffer.alloc(70_000, 7)));
  socket.frame(1, "one ", { final: false });
  socket.frame(9, "between");
  socket.frame(0, "", { final: false });
  socket.frame(0, "two");
  assert.equal((await socket.next(10)).text, "between");
  assert.equal((await socket.next(1)).text, "echo one two");
  assert.equal((await fn.ping()).sockets, 1);
  socket.close(1000, "done");
  assert.equal(await socket.closing(), 1000);
  assert.match((await fn.log("close ")).text, /^close 1000 done true 3/);
  assert.equal((await fn.ping()).sockets, 0);
});

both("the function closes with its own code, and one that throws closes with 1011", async ({ up }) => {
  const fn = await up(echo, { limits });
  const first = await Socket.open(fn);
  first.text("bye");
  assert.equal(await first.closing(), 4001);
  first.close(4001);
  await until(() => first.closed);
  const second = await Socket.open(fn);
  second.text("throw");
  assert.equal(await second.closing(), 1011);
  assert.equal((await fn.log("in a listener")).rid, "req_ws");
  assert.equal((await fn.ask("/")).text, "plain");
});

both("a message above the limit is refused with 1009, also in pieces and also only announced", async ({ up, runtime }) => {
  const fn = await up(echo, { limits });
  // Bun breaks such a connection off, with or without a frame that says so.
  const codes = runtime === "bun" ? [1006, 1009] : [1009];
  const whole = await Socket.open(fn);
  whole.frame(2, Buffer.alloc(100_001));
  assert.ok(codes.includes(await whole.closing()));
  const pieces = await Socket.open(fn);
  pieces.frame(2, Buffer.alloc(60_000), { final: false });
  pieces.frame(0, Buffer.alloc(60_000));
  assert.ok(codes.includes(await pieces.closing()));
  const announced = await Socket.open(fn);
  announced.frame(2, "", { length: 2 ** 40 });
  assert.ok(codes.includes(await announced.closing()));
  assert.equal((await fn.ask("/")).text, "plain");
});

both("what breaks the protocol is refused", async ({ up, runtime }) => {
  const fn = await up(echo, { limits });
  const breaks = {
    "no mask": [1002, (socket) => socket.frame(1, "x", { masked: false })],
    "reserved bits": [1002, (socket) => socket.frame(1, "x", { reserved: 0x40 })],
    "an unknown kind": [1002, (socket) => socket.frame(3, "x")],
    "a long ping": [1002, (socket) => socket.frame(9, Buffer.alloc(126))],
    "a ping in pieces": [1002, (socket) => socket.frame(9, "x", { final: false })],
    "a continuation of nothing": [1002, (socket) => socket.frame(0, "x")],
    "a message within a message": [1002, (socket) => (socket.frame(1, "x", { final: false }), socket.frame(1, "x"))],
    "text that is none": [1007, (socket) => socket.frame(1, Buffer.from([0xff, 0xfe]))],
    "a code that is none": [1002, (socket) => socket.frame(8, Buffer.from([3, 237]))],
    "half a code": [1002, (socket) => socket.frame(8, Buffer.from([3]))],
  };
  for (const [name, [code, act]] of Object.entries(breaks)) {
    const socket = await Socket.open(fn);
    act(socket);
    const got = await socket.closing();
    // Bun may end such a connection without a frame, and takes some harmless things for what they could mean.
    if (runtime === "node") assert.equal(got, code, name);
    await until(() => socket.closed || (socket.stream.destroy(), true), name);
  }
  assert.equal((await fn.ask("/")).text, "plain");
  await until(async () => (await fn.ping()).sockets === 0, "the end of all sockets");
});

both("a peer that does not read is given up at the limit", async ({ up }) => {
  const fn = await up(`export default (request, env, ctx) => {
    const { socket, response } = ctx.upgrade(request);
    socket.onopen = () => { const timer = setInterval(() => { for (let i = 0; i < 20; i++) socket.send(new Uint8Array(100_000)); }, 1); socket.onclose = ({ code }) => { clearInterval(timer); console.log("given up", code, socket.bufferedAmount < 2e6); }; };
    return response;
  };`, { limits });
  const socket = await Socket.open(fn);
  socket.stream.pause();
  assert.match((await fn.log("given up")).text, /given up 1006/);
  assert.ok((await fn.ping()).rss < 300e6);
  socket.stream.destroy();
});

both("frames in single bytes and a lot of them are one stream", async ({ up }) => {
  const fn = await up(echo, { limits });
  const socket = await Socket.open(fn);
  const write = socket.stream.write.bind(socket.stream);
  socket.stream.write = (bytes) => [...bytes].forEach((byte) => write(Buffer.from([byte])));
  socket.text("slowly");
  assert.equal((await socket.next(1)).text, "echo slowly");
  socket.stream.write = write;
  for (let i = 0; i < 2000; i++) socket.text(`${i}`);
  await until(() => socket.frames.length === 2000);
  assert.deepEqual(socket.frames.map(({ text }) => text), Array.from({ length: 2000 }, (_, i) => `echo ${i}`));
  for (let i = 0; i < 5000; i++) socket.frame(i === 0 ? 1 : 0, i === 0 ? "x" : "y", { final: i === 4999 });
  await until(() => socket.frames.length === 2001);
  assert.equal(socket.frames[2000].text, `echo x${"y".repeat(4999)}`);
});

both("an upgrade may be refused with any answer, and a plain request is no upgrade", async ({ up }) => {
  const fn = await up(`export default async (request, env, ctx) => {
    if (request.url.endsWith("/no")) return new Response("not you", { status: 403, headers: { "x-a": "1" } });
    if (request.url.endsWith("/changed")) { const { socket } = ctx.upgrade(request); socket.onclose = ({ code }) => console.log("never open", code); return new Response("after all", { status: 409 }); }
    if (request.url.endsWith("/copied")) { const { socket, response } = ctx.upgrade(request); socket.send("early"); await 1; const copy = new Response(response.body, response); copy.headers.append("x-b", "2"); return copy; }
    try { ctx.upgrade(request); } catch (error) { return new Response(error.message); }
  };`);
  const refused = await Socket.open(fn, "/no");
  assert.match(refused.head, /^HTTP\/1\.1 403 [^]*x-a: 1/i);
  const changed = await Socket.open(fn, "/changed");
  assert.match(changed.head, /^HTTP\/1\.1 409 /);
  await fn.log("never open 1006");
  const copied = await Socket.open(fn, "/copied");
  assert.match(copied.head, /^HTTP\/1\.1 101 [^]*x-b: 2/i);
  assert.equal((await copied.next(1)).text, "early");
  assert.match((await fn.ask("/")).text, /does not ask for a WebSocket/);
  assert.equal((await fn.ask("/", { headers: { upgrade: "h2c", connection: "Upgrade" } })).status, 200);
  for (const headers of [{ "sec-websocket-key": null }, { "sec-websocket-version": "8" }, { "sec-websocket-key": "short" }]) {
    const wrong = await Socket.open(fn, "/copied", headers);
    assert.doesNotMatch(wrong.head, /^HTTP\/1\.1 101/);
  }
  await until(async () => (await fn.ping()).in_flight === 0);
});

both("a client that leaves before the handshake leaves no socket behind", async ({ up }) => {
  const fn = await up(`let go; export default async (request, env, ctx) => {
    if (request.url.endsWith("/go")) { go(); return new Response("went"); }
    const { socket, response } = ctx.upgrade(request);
    socket.onclose = ({ code }) => console.log("closed", code);
    request.signal.addEventListener("abort", () => console.log("left"));
    console.log("asked"); await new Promise((done) => (go = done)); return response;
  };`);
  const opening = Socket.open(fn).catch(() => {});
  await fn.log("asked");
  Socket.last.stream.destroy();
  await opening;
  await fn.log("left");
  await fn.ask("/go");
  await fn.log("closed 1006");
  const { sockets, in_flight } = await fn.ping();
  assert.deepEqual({ sockets, in_flight }, { sockets: 0, in_flight: 0 });
});

both("SIGTERM ends sockets with 1001", async ({ up }) => {
  const fn = await up(echo);
  const socket = await Socket.open(fn);
  fn.process.kill("SIGTERM");
  assert.equal(await socket.closing(), 1001);
  socket.close(1001);
  assert.equal(await fn.exit, 0);
});
