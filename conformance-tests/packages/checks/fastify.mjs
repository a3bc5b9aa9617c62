import assert from "node:assert/strict";
import Fastify from "fastify";
import { checked } from "./local.mjs";

export default checked(async () => {
  const app = Fastify();
  app.post("/a", { schema: { body: { type: "object", required: ["n"], properties: { n: { type: "integer" } } } } }, async (request) => ({ n: request.body.n + 1 }));
  assert.equal((await app.inject({ method: "POST", url: "/a", payload: {} })).statusCode, 400);
  const url = await app.listen({ port: 0, host: "127.0.0.1" });
  const answer = await fetch(`${url}/a`, { method: "POST", body: '{"n":1}', headers: { "content-type": "application/json" } });
  assert.deepEqual(await answer.json(), { n: 2 });
  await app.close();
});
