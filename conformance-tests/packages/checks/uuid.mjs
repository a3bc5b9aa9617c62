import assert from "node:assert/strict";
import { v7, validate, version } from "uuid";
import { checked } from "./local.mjs";

export default checked(() => {
  const id = v7();
  assert.deepEqual([validate(id), version(id)], [true, 7]);
});
