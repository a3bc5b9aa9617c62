import assert from "node:assert/strict";
import fetch from "node-fetch";
import { checked, json, serving } from "./local.mjs";

export default checked(() =>
  serving((request, response, body) => json(response, { body }), async (url) => {
    assert.deepEqual(await (await fetch(url, { method: "POST", body: "x" })).json(), { body: "x" });
  }),
);
