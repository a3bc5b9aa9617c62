import assert from "node:assert/strict";
import { Agent, request } from "undici";
import { checked, json, serving } from "./local.mjs";

export default checked(() =>
  serving((asked, response) => json(response, { url: asked.url }), async (url) => {
    const dispatcher = new Agent();
    const { statusCode, body } = await request(`${url}/a`, { dispatcher });
    assert.deepEqual([statusCode, await body.json()], [200, { url: "/a" }]);
    await dispatcher.close();
  }),
);
