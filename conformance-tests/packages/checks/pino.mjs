import assert from "node:assert/strict";
import { Writable } from "node:stream";
import pino from "pino";
import { checked } from "./local.mjs";

export default checked(async () => {
  const lines = [];
  const logger = pino({ level: "debug" }, new Writable({ write: (chunk, _, done) => (lines.push(JSON.parse(chunk)), done()) }));
  logger.child({ a: 1 }).info("hello");
  assert.deepEqual([lines[0].a, lines[0].msg], [1, "hello"]);
  pino().info("to the log");
});
