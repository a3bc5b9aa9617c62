import assert from "node:assert/strict";
import cloud from "wx-server-sdk";
import { checked } from "./local.mjs";

export default checked(() => {
  cloud.init({ env: "shop-1" });
  assert.equal(typeof cloud.getWXContext, "function");
  assert.ok(cloud.database().command.eq(1));
});
