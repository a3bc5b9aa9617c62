import assert from "node:assert/strict";
import { parse, stringify } from "yaml";
import { checked } from "./local.mjs";

export default checked(() => assert.deepEqual(parse(stringify({ a: [1, { b: "c" }] })), { a: [1, { b: "c" }] }));
