import assert from "node:assert/strict";
import { Hono } from "hono";
import { cors } from "hono/cors";
import { streamSSE } from "hono/streaming";
import { validator } from "hono/validator";

const app = new Hono();
app.use("/api/*", cors());
app.post("/api/todos/:id", validator("json", (value) => value), (c) => c.json({ id: c.req.param("id"), ...c.req.valid("json") }, 201));
app.get("/sse", (c) => streamSSE(c, async (stream) => void (await stream.writeSSE({ data: "x", event: "tick" }))));
app.get("/", async (c) => {
  c.executionCtx.waitUntil(Promise.resolve());
  const made = await app.request("/api/todos/5", { method: "POST", body: '{"a":1}', headers: { "content-type": "application/json", origin: "https://x.example" } });
  assert.deepEqual([made.status, made.headers.get("access-control-allow-origin"), await made.json()], [201, "*", { id: "5", a: 1 }]);
  assert.equal(await (await app.request("/sse")).text(), "event: tick\ndata: x\n\n");
  return c.text("ok");
});

export default app;
