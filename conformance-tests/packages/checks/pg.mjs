import assert from "node:assert/strict";
import pg from "pg";
import { checked } from "./local.mjs";

export default checked(async () => {
  const client = new pg.Client({ host: "127.0.0.1", port: 1, connectionTimeoutMillis: 2000 });
  await assert.rejects(client.connect(), { code: "ECONNREFUSED" });
  assert.equal(pg.escapeLiteral("it's"), "'it''s'");
});
