import assert from "node:assert/strict";
import { createClient } from "@supabase/supabase-js";
import { checked, json, serving } from "./local.mjs";

export default checked(() =>
  serving(
    (request, response) => json(response, [{ id: 1, url: request.url }]),
    async (url) => {
      const client = createClient(url, "key", { auth: { persistSession: false, autoRefreshToken: false } });
      const { data, error } = await client.from("todos").select("*").eq("id", 1);
      assert.equal(error, null);
      assert.deepEqual(data, [{ id: 1, url: "/rest/v1/todos?select=*&id=eq.1" }]);
    },
  ),
);
