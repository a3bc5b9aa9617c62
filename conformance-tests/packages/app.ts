// One app of several hundred modules that asks its runtime for eighteen things that functions use; `/` says which work.

import { AsyncLocalStorage } from "node:async_hooks";
import { createHash } from "node:crypto";
import { gunzipSync, gzipSync } from "node:zlib";
import { createClient } from "@supabase/supabase-js";
import { addDays, formatISO } from "date-fns";
import { Hono } from "hono";
import { SignJWT, jwtVerify } from "jose";
import { nanoid } from "nanoid";
import pg from "pg";
import { z } from "zod";

type Env = { Bindings: { GREETING: string } };
const store = new AsyncLocalStorage<{ id: string }>();
const enum Level { Low = 1, High = 2 }

const checks: Record<string, (env: Env["Bindings"]) => unknown> = {
  "zod parses": () => z.object({ n: z.number() }).parse({ n: 1 }).n === 1,
  "nanoid makes ids": () => nanoid(10).length === 10,
  "date-fns adds days": () => formatISO(addDays(new Date(0), 1)).includes("1970-01-0"),
  "jose signs and verifies": async () => {
    const key = new TextEncoder().encode("0123456789abcdef0123456789abcdef");
    const token = await new SignJWT({ a: 1 }).setProtectedHeader({ alg: "HS256" }).sign(key);
    return (await jwtVerify(token, key)).payload.a === 1;
  },
  "supabase-js makes a client": () => typeof createClient("http://127.0.0.1:1", "key").from === "function",
  "pg makes a pool": () => typeof new pg.Pool({ host: "127.0.0.1", port: 1 }).query === "function",
  "Buffer reads base64url": () => Buffer.from("aGk_", "base64url").length === 3,
  "node:crypto hashes": () => createHash("sha256").update("x").digest("hex").startsWith("2d711642"),
  "AsyncLocalStorage follows": () => store.run({ id: "a" }, () => new Promise((done) => setTimeout(() => done(store.getStore()?.id === "a"), 2))),
  "URL parses": () => new URL("/a?b=c", "https://x.example").searchParams.get("b") === "c",
  "crypto.subtle signs": async () => {
    const key = await crypto.subtle.generateKey({ name: "HMAC", hash: "SHA-256" }, false, ["sign", "verify"]);
    const data = new Uint8Array([1, 2]);
    return crypto.subtle.verify("HMAC", key, await crypto.subtle.sign("HMAC", key, data), data);
  },
  "FormData carries files": async () => {
    const form = new FormData();
    form.set("f", new File(["abc"], "a.txt"));
    const back = await new Response(form).formData();
    return (await (back.get("f") as File).text()) === "abc";
  },
  "streams pipe": async () => {
    const upper = new TransformStream<string, string>({ transform: (text, out) => out.enqueue(text.toUpperCase()) });
    const stream = new Blob(["abc"]).stream().pipeThrough(new TextDecoderStream()).pipeThrough(upper).pipeThrough(new TextEncoderStream());
    return (await new Response(stream).text()) === "ABC";
  },
  "Intl knows Chinese": () => new Intl.DateTimeFormat("zh-CN", { dateStyle: "long", timeZone: "Asia/Shanghai" }).format(new Date(0)) === "1970年1月1日",
  "zlib packs": () => gunzipSync(gzipSync("x".repeat(1000))).length === 1000,
  "structuredClone keeps maps": () => structuredClone(new Map([[1, { a: new Date(5) }]])).get(1)!.a.getTime() === 5,
  "signals end what waits": async () => {
    const left = new Promise((_, failed) => AbortSignal.any([AbortSignal.timeout(5)]).addEventListener("abort", () => failed(new Error("over"))));
    return left.catch((error: Error) => error.message === "over");
  },
  "variables and const enums are there": (env) => env.GREETING === "hello" && process.env.GREETING === "hello" && Level.High === 2,
};

const app = new Hono<Env>();
app.get("/throw", () => {
  throw new RangeError("from line " + Level.Low);
});
app.onError((error, c) => c.text(`${error.stack}`, 500));
app.get("/", async (c) => {
  const results: Record<string, unknown> = {};
  for (const [name, check] of Object.entries(checks)) {
    results[name] = await Promise.resolve().then(() => check(c.env)).catch((error: Error) => error.message);
  }
  return c.json(results);
});

export default app;
