import assert from "node:assert/strict";
import postgres from "postgres";
import { checked } from "./local.mjs";

export default checked(async () => {
  const sql = postgres({ host: "127.0.0.1", port: 1, connect_timeout: 2, max: 1 });
  await assert.rejects(sql`select ${1}`, { code: "ECONNREFUSED" });
  await sql.end({ timeout: 0 });
});
