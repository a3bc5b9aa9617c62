import assert from "node:assert/strict";
import { customAlphabet, nanoid } from "nanoid";
import { checked } from "./local.mjs";

export default checked(() => {
  assert.match(nanoid(), /^[\w-]{21}$/);
  assert.match(customAlphabet("ab", 8)(), /^[ab]{8}$/);
});
