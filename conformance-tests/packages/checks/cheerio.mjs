import assert from "node:assert/strict";
import { load } from "cheerio";
import { checked } from "./local.mjs";

export default checked(() => assert.equal(load("<ul><li>a<li class=x>b</ul>")("li.x").text(), "b"));
