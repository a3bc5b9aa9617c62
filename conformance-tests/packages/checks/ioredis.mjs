import assert from "node:assert/strict";
import { createServer } from "node:net";
import { Redis } from "ioredis";
import { checked, listening } from "./local.mjs";

export default checked(async () => {
  const server = createServer((stream) => {
    stream.on("error", () => {});
    stream.on("data", (data) => {
      for (const command of data.toString().matchAll(/\*\d+\r\n\$\d+\r\n(\w+)\r\n/g)) {
        stream.write(/get/i.test(command[1]) ? "$5\r\nvalue\r\n" : "+OK\r\n");
      }
    });
  }).listen(0, "127.0.0.1");
  const redis = new Redis({ port: await listening(server), enableReadyCheck: false, disableClientInfo: true });
  assert.equal(await redis.get("key"), "value");
  redis.disconnect();
  server.close();
});
