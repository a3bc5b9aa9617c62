// What `sdk.js` makes of rows, versions, pages, batches and filters.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { startApp } from "./app.mjs";
import { AppError, createClient, where } from "./sdk.mjs";

let app, client;
const requests = () => app.seen.map(({ line, body, headers }) => [line, body, headers["if-match"]]);

beforeEach(async () => {
  app = await startApp();
  client = createClient({ url: `${app.url}/some/page` });
});

afterEach(() => app.stop());

test("each operation is the request that it says", async () => {
  app.rule = ({ line }) => (line.startsWith("DELETE") ? [204] : [200, { id: "a-1", rows: [] }, { etag: '"v7"' }]);
  const todos = client.db("todos");
  await todos.list();
  await todos.list({ select: ["id", "title"], where: where`done == ${true}`, order: ["-created_at", "title"], limit: 5, cursor: "c" });
  await todos.list({ select: "id", where: "done", order: "title" });
  const row = await todos.get("a-1");
  await todos.create({ title: "x" });
  await todos.update("a-1", { done: true });
  await todos.update("a-1", { done: true }, { ifMatch: row });
  await todos.update("a-1", { done: true }, { ifMatch: '"v2"' });
  assert.equal(await todos.delete("a-1", { ifMatch: row }), undefined);
  assert.deepEqual(requests(), [
    ["POST /_/db/todos/query", {}, undefined],
    ["POST /_/db/todos/query", { select: "id,title", where: "done == true", order: "-created_at,title", limit: 5, cursor: "c" }, undefined],
    ["POST /_/db/todos/query", { select: "id", where: "done", order: "title" }, undefined],
    ["GET /_/db/todos/a-1", "", undefined],
    ["POST /_/db/todos", { title: "x" }, undefined],
    ["PATCH /_/db/todos/a-1", { done: true }, undefined],
    ["PATCH /_/db/todos/a-1", { done: true }, '"v7"'],
    ["PATCH /_/db/todos/a-1", { done: true }, '"v2"'],
    ["DELETE /_/db/todos/a-1", "", '"v7"'],
  ]);
});

test("a misspelt option reaches the app, which refuses it", async () => {
  app.rule = () => [400, { code: "invalid_input", message: "unknown field", field: "/orderBy" }];
  await assert.rejects(client.db("todos").list({ orderBy: "title" }), { field: "/orderBy" });
  assert.deepEqual(app.seen[0].body, { orderBy: "title" });
});

test("a version of another thing than a row that came alone is refused before anything is sent", async () => {
  app.rule = () => [200, { rows: [{ id: "a" }] }];
  const { rows } = await client.db("todos").list();
  for (const ifMatch of [rows[0], {}, null]) {
    await assert.rejects(client.db("todos").update("a", {}, { ifMatch }), TypeError);
    await assert.rejects(client.batch([{ do: "delete", on: "todos", id: "a", ifMatch }]), TypeError);
  }
  assert.equal(app.seen.length, 1);
});

test("an id that would lead elsewhere is refused before anything is sent", async () => {
  for (const id of ["", ".", "..", "a/b", "%2e%2e", "a?b", "a#b", undefined, null, 1, "a\n"]) {
    await assert.rejects(client.db("todos").get(id), TypeError, `${id}`);
    await assert.rejects(client.db("todos").update(id, {}), TypeError, `${id}`);
    await assert.rejects(client.db("todos").delete(id), TypeError, `${id}`);
    assert.throws(() => client.db(id), TypeError, `${id}`);
  }
  assert.deepEqual(app.seen, []);
});

test("all goes from page to page and stops when asked to", async () => {
  const pages = { undefined: [["a", "b"], "1"], 1: [["c"], "2"], 2: [[], "3"], 3: [["d"]] };
  app.rule = ({ body }) => {
    const [ids, cursor] = pages[body.cursor];
    return [200, { rows: ids.map((id) => ({ id })), cursor }];
  };
  const ids = [];
  for await (const { id } of client.db("todos").all({ where: "done" })) ids.push(id);
  assert.deepEqual(ids, ["a", "b", "c", "d"]);
  assert.deepEqual(app.seen.map(({ body }) => body), [
    { where: "done", limit: 200 },
    { where: "done", limit: 200, cursor: "1" },
    { where: "done", limit: 200, cursor: "2" },
    { where: "done", limit: 200, cursor: "3" },
  ]);
  for await (const { id } of client.db("todos").all({ limit: 2, cursor: "2" })) assert.equal(id, "d");
  for await (const _ of client.db("todos").all()) break;
  assert.equal(app.seen.length, 7);
});

test("a batch is one request whose rows can be changed conditionally", async () => {
  app.rule = ({ line }) =>
    line === "POST /_/batch"
      ? [200, { results: [{ status: 201, row: { id: "a" }, etag: '"v1"' }, { status: 204 }] }]
      : [200, { id: "a" }, { etag: '"v2"' }];
  const row = await client.db("todos").get("a");
  const results = await client.batch([
    { do: "create", on: "todos", new: { title: "x" } },
    { do: "delete", on: "todos", id: "a", ifMatch: row },
  ]);
  await client.db("todos").update("a", {}, { ifMatch: results[0].row });
  assert.deepEqual(results.map(({ status }) => status), [201, 204]);
  assert.deepEqual(requests().slice(1), [
    ["POST /_/batch", { operations: [
      { do: "create", on: "todos", new: { title: "x" } },
      { do: "delete", on: "todos", id: "a", if_match: '"v2"' },
    ] }, undefined],
    ["PATCH /_/db/todos/a", {}, '"v1"'],
  ]);
});

test("a filter's values stay values", () => {
  const check = (filter, text) => assert.equal(String(filter), text);
  check(where`done == ${true} && size(title) > ${3.5} && note != ${null}`, "done == true && size(title) > 3.5 && note != null");
  check(where`title == ${`" || true || title == "`}`, String.raw`title == "\" || true || title == \""`);
  check(where`title == ${"\\\" \n\t\u0000 '"}`, String.raw`title == "\\\" \n\t\u0000 '"`);
  check(where`id in ${["a", 'b"', 3n]}`, String.raw`id in ["a", "b\"", 3]`);
  check(where`created_at < ${new Date(0)}`, 'created_at < "1970-01-01T00:00:00.000Z"');
  check(where`${where`a || b`} && c == ${"x"}`, '(a || b) && c == "x"');
  check(where`done`, "done");
  for (const value of [undefined, NaN, Infinity, {}, { toString: () => "true" }, () => 1, Symbol("s"), [undefined], new Date(NaN)]) {
    assert.throws(() => where`a == ${value}`, Error);
  }
});

test("outside of a page the address must be given", () => {
  assert.throws(() => createClient(), { name: "TypeError", message: /needs the url/ });
  assert.throws(() => createClient({ url: "nonsense" }), TypeError);
  assert.ok(new AppError(0, {}) instanceof Error);
});
