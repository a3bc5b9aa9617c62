import assert from "node:assert/strict";
import axios from "axios";
import { checked, json, serving } from "./local.mjs";

export default checked(() =>
  serving(
    (request, response, body) => json(response, { body: JSON.parse(body) }, request.url === "/bad" ? 422 : 200),
    async (url) => {
      assert.deepEqual((await axios.post(url, { a: 1 })).data, { body: { a: 1 } });
      await assert.rejects(axios.post(`${url}/bad`, {}), (error) => error.response.status === 422);
    },
  ),
);
