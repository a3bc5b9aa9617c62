import assert from "node:assert/strict";
import { eq } from "drizzle-orm";
import { integer, pgTable, text } from "drizzle-orm/pg-core";
import { drizzle } from "drizzle-orm/pg-proxy";
import { checked } from "./local.mjs";

const todos = pgTable("todos", { id: integer("id").primaryKey(), title: text("title") });

export default checked(async () => {
  const asked = [];
  const db = drizzle(async (sql, params) => (asked.push([sql, params]), { rows: [[1, "x"]] }));
  assert.deepEqual(await db.select().from(todos).where(eq(todos.id, 1)), [{ id: 1, title: "x" }]);
  assert.deepEqual(asked, [['select "id", "title" from "todos" where "todos"."id" = $1', [1]]]);
});
