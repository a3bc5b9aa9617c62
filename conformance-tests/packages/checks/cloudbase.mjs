import assert from "node:assert/strict";
import tcb from "@cloudbase/node-sdk";
import { checked } from "./local.mjs";

export default checked(() => {
  const app = tcb.init({ env: "shop-1", secretId: "id", secretKey: "key" });
  const command = app.database().command;
  assert.equal(typeof app.callFunction, "function");
  assert.ok(command.gt(5));
});
