import assert from "node:assert/strict";
import { z } from "zod";
import { checked } from "./local.mjs";

export default checked(() => {
  const todo = z.object({ title: z.string().min(1), due: z.coerce.date().optional() });
  assert.equal(todo.parse({ title: "x", due: "2026-01-01" }).due.getUTCFullYear(), 2026);
  assert.equal(todo.safeParse({ title: "" }).success, false);
});
