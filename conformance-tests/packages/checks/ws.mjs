import assert from "node:assert/strict";
import { once } from "node:events";
import WebSocket, { WebSocketServer } from "ws";
import { checked } from "./local.mjs";

export default checked(async () => {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  server.on("connection", (socket) => socket.on("message", (data) => socket.send(`echo ${data}`)));
  await once(server, "listening");
  const client = new WebSocket(`ws://127.0.0.1:${server.address().port}`);
  await once(client, "open");
  const answer = once(client, "message");
  client.send("hi");
  assert.equal((await answer)[0].toString(), "echo hi");
  client.terminate();
  server.close();
});
