import assert from "node:assert/strict";
import mysql from "mysql2/promise";
import { checked } from "./local.mjs";

export default checked(async () => {
  assert.equal(mysql.format("SELECT ? FROM ??", ["it's", "t"]), "SELECT 'it\\'s' FROM `t`");
  await assert.rejects(mysql.createConnection({ host: "127.0.0.1", port: 1 }), { code: "ECONNREFUSED" });
});
