import assert from "node:assert/strict";
import { marked } from "marked";
import { checked } from "./local.mjs";

export default checked(async () => assert.equal((await marked("# a *b*")).trim(), "<h1>a <em>b</em></h1>"));
