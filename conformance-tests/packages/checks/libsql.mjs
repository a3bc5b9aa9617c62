import assert from "node:assert/strict";
import Database from "libsql";
import { checked } from "./local.mjs";

export default checked(() => {
  const db = new Database(":memory:");
  db.exec("CREATE TABLE t (a INTEGER, b TEXT)");
  db.prepare("INSERT INTO t VALUES (?, ?)").run(1, "x");
  const { a, b } = db.prepare("SELECT * FROM t").get();
  assert.deepEqual({ a, b }, { a: 1, b: "x" });
});
