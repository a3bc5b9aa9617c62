// `sdk.js` against the real thing, whose address is in APP.
import assert from "node:assert/strict";
import dns from "node:dns";
import { test } from "node:test";
import { createClient, where } from "./sdk.mjs";

const url = process.env.APP;
// Names below localhost are this machine (RFC 6761 §6.3), whatever its resolver says.
const lookup = dns.lookup;
dns.lookup = (host, options, done) => lookup(host.endsWith(".localhost") ? "127.0.0.1" : host, options, done);
const items = new Map();
globalThis.localStorage = {
  getItem: (name) => items.get(name) ?? null,
  setItem: (name, value) => void items.set(name, value),
  removeItem: (name) => void items.delete(name),
};
const name = `app:${url}`;
const session = (change) => localStorage.setItem(name, JSON.stringify({ ...JSON.parse(localStorage.getItem(name)), ...change }));
const fails = (promise, status, code) => assert.rejects(promise, { name: "AppError", status, code });

const app = createClient({ url });
const todos = app.db("todos");

test("a visitor sees nothing and makes nothing", async () => {
  assert.deepEqual(await todos.list(), { rows: [] });
  await fails(todos.create({ title: "x" }), 403, "forbidden");
});

test("filters find exactly the text that they are given", async () => {
  const user = await app.auth.anonymous();
  const texts = ['"', "'", "\\", '\\"', `" || true || "`, "' OR 1=1 --", "a\nb\tc", "\u0000", "\u001f", "é 猫 🐈", "\u2028", "${x}", "%", ""];
  for (const text of texts) await todos.create({ title: text });
  for (const text of texts) {
    const { rows } = await todos.list({ where: where`title == ${text} && owner == ${user.id}` });
    assert.deepEqual(rows.map((row) => row.title), [text], JSON.stringify(text));
    const others = await todos.list({ where: where`title != ${text}`, limit: 200 });
    assert.equal(others.rows.length, texts.length - 1, JSON.stringify(text));
  }
  const { rows } = await todos.list({ where: where`title in ${texts.slice(0, 3)} && !done && position >= ${-1.5}`, order: ["title"] });
  assert.deepEqual(rows.map((row) => row.title), ['"', "'", "\\"]);
  const since = where`created_at > ${new Date(Date.now() - 60_000)} && created_at < ${new Date(Date.now() + 60_000)}`;
  assert.equal((await todos.list({ where: since })).rows.length, texts.length);
  assert.equal((await todos.list({ where: where`(${since}) && ${where`title == ${"%"} || title == ${"'"}`}` })).rows.length, 2);
});

test("all pages come in order, each row once", async () => {
  const operations = Array.from({ length: 40 }, (_, i) => ({ do: "create", on: "todos", new: { title: `page ${String(i).padStart(2, "0")}` } }));
  const results = await app.batch(operations);
  assert.deepEqual(new Set(results.map(({ status }) => status)), new Set([201]));
  const titles = [];
  for await (const row of todos.all({ select: ["title"], where: where`startsWith(title, ${"page"})`, order: "-title", limit: 7 })) titles.push(row.title);
  assert.deepEqual(titles, operations.map((operation) => operation.new.title).reverse());
});

test("a row changes only in the version that is known", async () => {
  const first = await todos.create({ title: "first" });
  const second = await todos.update(first.id, { title: "second" }, { ifMatch: first });
  await fails(todos.update(first.id, { title: "third" }, { ifMatch: first }), 412, "conflict");
  await fails(todos.delete(first.id, { ifMatch: first }), 412, "conflict");
  const operation = { do: "update", on: "todos", id: first.id, new: { done: true } };
  await fails(app.batch([{ ...operation, ifMatch: first }]), 412, "conflict");
  const [{ row }] = await app.batch([{ ...operation, ifMatch: second }]);
  assert.deepEqual([row.title, row.done], ["second", true]);
  await todos.delete(first.id, { ifMatch: row });
  await fails(todos.get(first.id), 404, "not_found");
});

test("mistakes say where they are", async () => {
  await assert.rejects(todos.create({ titel: "x" }), { status: 400, code: "invalid_input", field: "/titel" });
  await assert.rejects(todos.list({ where: "titel == 1" }), { status: 400, code: "invalid_input", field: "/where" });
  await assert.rejects(todos.list({ orderBy: "title" }), { status: 400, code: "invalid_input" });
  await assert.rejects(app.batch([{ do: "delete", on: "nothing", id: "x" }]), { status: 404, field: "/operations/0/on" });
});

test("an account is the anonymous user it was, in every tab and after every renewal", async () => {
  const guest = app.auth.user;
  const account = await app.auth.signUp({ email: "live@example.com", password: "long enough" });
  assert.deepEqual([account.id, account.email, account.anonymous], [guest.id, "live@example.com", false]);
  session({ renew_at: 0 });
  const tabs = [app, createClient({ url }), createClient({ url })];
  const lists = await Promise.all(tabs.map((tab) => tab.db("todos").list({ limit: 1 })));
  assert.deepEqual(lists.map(({ rows }) => rows.length), [1, 1, 1]);
  session({ access_token: "spoilt" });
  assert.equal((await todos.list({ limit: 1 })).rows.length, 1);
  await fails(app.auth.signUp({ email: "live@example.com", password: "long enough" }), 409, "conflict");
  await fails(app.auth.login({ email: "live@example.com", password: "wrong password" }), 401, "unauthenticated");
  assert.equal((await app.auth.login({ email: "live@example.com", password: "long enough" })).id, account.id);
  const kept = localStorage.getItem(name);
  await app.auth.logout({ everywhere: true });
  assert.equal(app.auth.user, null);
  localStorage.setItem(name, kept);
  await fails(todos.list(), 401, "unauthenticated");
  assert.equal(localStorage.getItem(name), null);
});
