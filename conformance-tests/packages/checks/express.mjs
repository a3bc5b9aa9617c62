import assert from "node:assert/strict";
import express from "express";
import { checked, listening } from "./local.mjs";

export default checked(async () => {
  const app = express();
  app.use(express.json());
  app.post("/todos/:id", (request, response) => response.status(201).json({ id: request.params.id, ...request.body }));
  const server = app.listen(0, "127.0.0.1");
  const answer = await fetch(`http://127.0.0.1:${await listening(server)}/todos/5`, { method: "POST", body: '{"a":1}', headers: { "content-type": "application/json" } });
  assert.deepEqual([answer.status, await answer.json()], [201, { id: "5", a: 1 }]);
  server.closeAllConnections();
  server.close();
});
