import assert from "node:assert/strict";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { checked } from "./local.mjs";

export default checked(async () => {
  const worker = new Worker("require('node:worker_threads').parentPort.on('message', (n) => require('node:worker_threads').parentPort.postMessage(n * 2))", { eval: true });
  const answer = once(worker, "message");
  worker.postMessage(21);
  assert.deepEqual(await answer, [42]);
  await worker.terminate();
});
