import assert from "node:assert/strict";
import Ajv from "ajv";
import { checked } from "./local.mjs";

export default checked(() => {
  const valid = new Ajv().compile({ type: "object", properties: { n: { type: "integer" } }, additionalProperties: false });
  assert.deepEqual([valid({ n: 1 }), valid({ n: 1.5 }), valid({ m: 1 })], [true, false, false]);
});
