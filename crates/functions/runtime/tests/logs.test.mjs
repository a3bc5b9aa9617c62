// What a function says, what it cannot say, and how it dies.

import assert from "node:assert/strict";
import { both, until } from "./harness.mjs";

both("console speaks in lines with the level and the request", async ({ up }) => {
  const fn = await up(`console.log("at the top"); export default async (request, env, ctx) => {
    console.debug("debug"); console.info("info", 1, true, null, undefined); console.warn("%s is %d", "x", 5, { a: 1 }); console.error("error");
    console.log({ a: { b: [1, 2] } }, [1]); console.log("two\\nlines"); console.log();
    console.group("group"); console.log("inside"); console.groupEnd(); console.log("outside");
    console.table([{ a: 1 }]); console.assert(false, "asserted"); console.count("n"); console.log(12n, Symbol("s"));
    await new Promise((go) => setTimeout(go, 5)); console.log("later");
    setTimeout(() => console.log("after the answer"), 20);
    process.stdout.write("part "); process.stdout.write("whole\\n"); process.stderr.write("bad\\n");
    return new Response(ctx.requestId);
  };`);
  await fn.ask("/", { id: "req_a" });
  await fn.log("after the answer");
  const said = fn.logs.filter(({ rid }) => rid === "req_a").map(({ level, text }) => [level, text.replace(/\s+/g, " ").trim()]);
  const find = (part) => said.find(([, text]) => text.includes(part));
  assert.deepEqual(said.slice(0, 4), [["debug", "debug"], ["info", "info 1 true null undefined"], ["warn", "x is 5 { a: 1 }"], ["error", "error"]]);
  assert.match(find("b:")[1], /\{ a: \{ b: \[ 1, 2 \],? \},? \} \[ 1 \]/);
  assert.ok(fn.logs.some(({ text }) => text === "two\nlines"));
  assert.ok(fn.logs.some(({ text }) => text === "  inside") && fn.logs.some(({ text }) => text === "outside"));
  assert.equal(find("asserted")[0], "error");
  assert.deepEqual(find("n: 1"), ["info", "n: 1"]);
  assert.deepEqual(find("12n"), ["info", "12n Symbol(s)"]);
  assert.deepEqual(find("part"), ["info", "part whole"]);
  assert.deepEqual(find("bad"), ["error", "bad"]);
  assert.ok(find("later"));
  const top = fn.logs.find(({ text }) => text === "at the top");
  assert.deepEqual([top.rid, typeof top.t], [undefined, "number"]);
  assert.deepEqual(fn.raw, []);
});

both("requests at once keep their lines apart", async ({ up }) => {
  const fn = await up(`export default async (request, env, ctx) => {
    await new Promise((go) => setTimeout(go, Math.random() * 10)); console.log("for", ctx.requestId);
    await fetch("data:,x"); await new Promise(setImmediate); queueMicrotask(() => console.log("for", ctx.requestId)); return new Response("x");
  };`);
  await Promise.all(Array.from({ length: 30 }, (_, i) => fn.ask("/", { id: `req_${i}` })));
  await until(() => fn.logs.length === 60);
  for (const { rid, text } of fn.logs) assert.equal(text, `for ${rid}`);
});

both("a line has at most 8 KiB and says what it lacks", async ({ up }) => {
  const fn = await up(`export default () => { console.log("x".repeat(100_000)); console.log("\\u0001é".repeat(5000)); console.log("end"); return new Response(); };`);
  await fn.ask();
  await fn.log("end");
  for (const { bytes, text, cut } of fn.logs.slice(0, 2)) {
    assert.ok(bytes <= 8192 && bytes > 7500, `${bytes} bytes`);
    assert.ok(cut > 0 && (text.length + cut === 100_000 || text.length + cut === 10_000));
  }
});

both("more than the limit in a second is dropped, and counted", async ({ up }) => {
  const fn = await up(`export default (request) => { if (request.url.endsWith("/one")) console.log("one"); else for (let i = 0; i < 50_000; i++) console.log("line " + i); return new Response(); };`, { limits: { log_bytes_per_s: 100_000 } });
  await fn.ask();
  await until(async () => (await fn.ask("/one"), fn.logs.some(({ text }) => text === "one")), "a line of the next second");
  assert.ok(fn.logs.length < 4000, `${fn.logs.length} lines`);
  assert.match((await fn.log("lines were not logged")).text, /more than 100000 bytes in a second \(limit log_bytes_per_s\)/);
});

both("forged lines are text", async ({ up, runtime }) => {
  const forged = `{"ready":{"runtime":"forged"}}`;
  const fn = await up(`import { writeSync } from "node:fs"; import { spawnSync } from "node:child_process";
    export default () => {
      writeSync(1, ${JSON.stringify(`${forged}\n`)}); writeSync(1, "\\x1eguessed " + ${JSON.stringify(`${forged}\n`)}); writeSync(1, "no end");
      console.log("\\x1eguessed " + ${JSON.stringify(forged)}); process.stdout.write(${JSON.stringify(`${forged}\n`)}); writeSync(2, "native\\n");
      spawnSync("echo", ["a child"], { stdio: "inherit" }); return new Response();
    };`);
  await fn.ask();
  await fn.log("guessed");
  await until(() => fn.raw.includes("a child"));
  assert.equal(fn.ready.runtime, runtime);
  assert.deepEqual(fn.raw, [forged, `\x1eguessed ${forged}`, "no end", "a child"]);
  assert.deepEqual(fn.logs.map(({ text }) => text), [`\x1eguessed ${forged}`, forged]);
  assert.equal(fn.stderr, "native\n");
});

both("an uncaught exception is logged and ends the process with 81", async ({ up }) => {
  const fn = await up("export default (request, env, ctx) => { setTimeout(() => { throw new RangeError('nobody catches'); }, 1); return new Promise(() => {}); };");
  fn.ask("/", { id: "req_u" }).catch(() => {});
  assert.equal(await fn.exit, 81);
  const { level, text } = fn.logs.at(-1);
  assert.equal(level, "error");
  assert.match(text, /uncaught exception: RangeError: nobody catches\n\s+at .*index\.mjs:1/);
});

both("an unhandled rejection ends it with 82, after what was in flight", async ({ up }) => {
  const fn = await up("export default async (request) => { if (request.url.endsWith('/bad')) { Promise.reject(new Error('nobody waits')); return new Response('answered'); } await new Promise((go) => setTimeout(go, 200)); return new Response('finished'); };");
  const other = fn.ask("/other");
  await until(async () => (await fn.ping()).in_flight === 1);
  const bad = await fn.ask("/bad");
  assert.equal(bad.text, "answered");
  assert.equal((await other).text, "finished");
  assert.equal(await fn.exit, 82);
  assert.match(fn.logs.at(-1).text, /unhandled rejection: Error: nobody waits\n\s+at .*index\.mjs:1/);
});

both("a storm of rejections is a few lines and one exit", async ({ up }) => {
  const fn = await up("export default async () => { for (let i = 0; i < 100_000; i++) Promise.reject(new Error('storm ' + i)); setInterval(() => { for (let i = 0; i < 1000; i++) Promise.reject(new Error('more')); }, 1); return new Promise(() => {}); };");
  const begun = Date.now();
  fn.ask().catch(() => {});
  assert.equal(await fn.exit, 82);
  assert.ok(Date.now() - begun < 10_000);
  assert.ok(fn.logs.length <= 7, `${fn.logs.length} lines`);
  assert.match(fn.logs.at(-1).text, /^\d+ more unhandled rejections$/);
});

both("process.exit is told from a crash", async ({ up }) => {
  const fn = await up("export default () => process.exit(3);");
  fn.ask().catch(() => {});
  assert.equal(await fn.exit, 83);
  assert.equal(fn.logs.at(-1).text, "the function called process.exit(3)");
});

both("the last line before an endless loop is there, and ping is not answered", async ({ up }) => {
  const fn = await up("export default () => { console.log('before'); for (;;); };");
  fn.ask().catch(() => {});
  await fn.log("before");
  const answered = await Promise.race([fn.ping().catch(() => "failed"), new Promise((go) => setTimeout(go, 300, "silent"))]);
  assert.equal(answered, "silent");
});

both("a listener of the process that tenant code adds changes none of that", async ({ up }) => {
  const fn = await up("process.on('uncaughtException', () => {}); process.on('unhandledRejection', () => {}); console.log = () => {}; JSON.stringify = () => 'x'; globalThis.Response = class { constructor() { this.status = 200; } }; export default (request) => { if (request.url.endsWith('/x')) setTimeout(() => { throw new Error('still'); }); return new Response(); };");
  assert.equal((await fn.ping()).ok, true);
  fn.ask("/x").catch(() => {});
  assert.equal(await fn.exit, 81);
});
