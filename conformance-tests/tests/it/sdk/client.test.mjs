// What `sdk.js` does with a session: several tabs, ends of tokens, lost networks, other people's sessions.
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { startApp } from "./app.mjs";

const START = Date.parse("2026-01-01T00:00:00Z");
const MINUTE = 60_000;
let app, storage, events;

/** What a page has and Node has not; Web Locks it has. */
function page() {
  const items = new Map();
  storage = {
    items,
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, value) => void items.set(name, String(value)),
    removeItem: (name) => void items.delete(name),
  };
  const define = (name, value) => Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  define("localStorage", storage);
  events = new EventTarget();
  define("addEventListener", events.addEventListener.bind(events));
}

let tabs = 0;
/** A module of its own, as each tab has one; storage and locks are the browser's. */
async function tab(options) {
  const sdk = await import(`./sdk.mjs?tab=${(tabs += 1)}`);
  return sdk.createClient({ url: app.url, ...options });
}

const todos = (client) => client.db("todos");
const refreshes = () => app.count("POST /_/auth/refresh");
const later = (ms) => mock.timers.tick(ms);
const stored = () => JSON.parse(storage.items.get(`app:${app.url}`) ?? "null");

beforeEach(async () => {
  app = await startApp();
  page();
  mock.timers.enable({ apis: ["Date"], now: START });
});

afterEach(async () => {
  mock.timers.reset();
  await app.stop();
});

test("many calls of anonymous in two tabs make one user", async () => {
  const [one, two] = [await tab(), await tab()];
  const users = await Promise.all([one, two, one, two].map((client) => client.auth.anonymous()));
  assert.deepEqual(users.map((user) => user.id), ["usr_1", "usr_1", "usr_1", "usr_1"]);
  assert.equal(app.count("POST /_/auth/anonymous"), 1);
  assert.deepEqual([...storage.items.keys()], [`app:${app.url}`]);
  assert.equal((await (await tab()).auth.ready).id, "usr_1");
});

test("without a session a request carries none", async () => {
  const client = await tab();
  assert.equal(await client.auth.ready, null);
  assert.equal((await todos(client).get("one")).as, null);
  assert.equal(app.seen[0].bearer, undefined);
  assert.equal(app.seen[0].headers["steading-key"], undefined);
});

test("a token is exchanged a minute before its end and not sooner", async () => {
  const client = await tab();
  await client.auth.anonymous();
  later(14 * MINUTE - 1);
  await todos(client).get("one");
  assert.equal(refreshes(), 0);
  later(1);
  assert.equal((await todos(client).get("one")).as, "usr_1");
  assert.equal(refreshes(), 1);
  assert.ok(!app.seen.some((request) => request.status === 401));
});

test("a token that lives for seconds is not exchanged at each request", async () => {
  app.lifetime = 30;
  const client = await tab();
  await client.auth.anonymous();
  await todos(client).get("one");
  assert.equal(refreshes(), 0);
  later(16_000);
  await todos(client).get("one");
  await todos(client).get("one");
  assert.equal(refreshes(), 1);
});

test("three tabs whose token has ended exchange it once", async () => {
  const clients = [await tab(), await tab(), await tab()];
  await clients[0].auth.anonymous();
  later(16 * MINUTE);
  const rows = await Promise.all([...clients, ...clients].map((client) => todos(client).get("one")));
  assert.deepEqual(rows.map((row) => row.as), Array(6).fill("usr_1"));
  assert.equal(refreshes(), 1);
});

test("three tabs whose token is refused exchange it once", async () => {
  const clients = [await tab(), await tab(), await tab()];
  await clients[0].auth.anonymous();
  app.spoilAccess();
  const rows = await Promise.all(clients.map((client) => todos(client).get("one")));
  assert.deepEqual(rows.map((row) => row.as), Array(3).fill("usr_1"));
  assert.equal(refreshes(), 1);
});

test("without web locks one tab still exchanges a token once", async () => {
  const locks = mock.getter(navigator, "locks", () => undefined);
  try {
    assert.equal(navigator.locks, undefined);
    const client = await tab();
    await client.auth.anonymous();
    later(16 * MINUTE);
    await Promise.all([1, 2, 3, 4].map(() => todos(client).get("one")));
    assert.equal(refreshes(), 1);
  } finally {
    locks.mock.restore();
  }
});

test("a request that is refused twice fails and signs nobody out", async () => {
  const client = await tab();
  await client.auth.anonymous();
  app.rule = ({ line }) => (line.startsWith("GET /_/db") ? [401, { code: "unauthenticated", message: "no" }] : undefined);
  await assert.rejects(todos(client).get("one"), { status: 401, code: "unauthenticated" });
  assert.equal(refreshes(), 1);
  assert.equal(client.auth.user.id, "usr_1");
});

test("a session that the server has ended is forgotten, told of, and never becomes no session", async () => {
  const [one, two] = [await tab(), await tab()];
  await one.auth.anonymous();
  const told = [];
  one.auth.onChange((user) => told.push(user));
  app.endAll();
  await assert.rejects(todos(one).get("one"), { name: "AppError", status: 401, code: "unauthenticated" });
  assert.deepEqual([told, one.auth.user, two.auth.user, stored()], [[null], null, null, null]);
  // What was meant for the user's rows has not been asked for as a visitor.
  assert.deepEqual(app.seen.map(({ line, bearer }) => [line, bearer]).slice(1), [
    ["GET /_/db/todos/one", "access-1"],
    ["POST /_/auth/refresh", undefined],
  ]);
});

test("a page that opens with a session that has ended is ready with nobody", async () => {
  await (await tab()).auth.anonymous();
  app.endAll();
  later(20 * MINUTE);
  const client = await tab();
  assert.equal(await client.auth.ready, null);
  assert.equal(client.auth.user, null);
});

test("a lost network signs nobody out and the next request works", async () => {
  await (await tab()).auth.anonymous();
  later(20 * MINUTE);
  app.rule = () => [0];
  const client = await tab();
  const told = [];
  client.auth.onChange((user) => told.push(user));
  assert.equal((await client.auth.ready).id, "usr_1");
  await assert.rejects(todos(client).get("one"), { status: 0, code: "unavailable", hint: "check the connection" });
  app.rule = ({ line }) => (line.includes("refresh") ? [503, "<h1>busy</h1>"] : undefined);
  // The token has ended, so the request says so itself once the exchange has failed.
  app.spoilAccess();
  await assert.rejects(todos(client).get("one"), { status: 503, code: "unavailable" });
  assert.deepEqual([told, client.auth.user.id], [[], "usr_1"]);
  app.rule = () => undefined;
  assert.equal((await todos(client).get("one")).as, "usr_1");
});

test("an answer that was lost costs nobody the session, and a thief without the attempt has no use of the token", async () => {
  await (await tab()).auth.anonymous();
  const stolen = stored().refresh_token;
  later(20 * MINUTE);
  app.lose = ({ line }) => line.includes("refresh");
  const lost = await tab();
  assert.equal((await lost.auth.ready).id, "usr_1");
  const { attempt, refresh_token } = stored();
  assert.deepEqual([refresh_token, attempt.length], [stolen, 32]);
  app.lose = () => false;
  // Also in another tab: the attempt is written down where all of them find it.
  const client = await tab();
  assert.equal((await client.auth.ready).id, "usr_1");
  assert.equal((await todos(client).get("one")).as, "usr_1");
  assert.notEqual(stored().refresh_token, stolen);
  assert.equal(stored().attempt, undefined);
  const refused = await fetch(`${app.url}/_/auth/refresh`, { method: "POST", body: JSON.stringify({ refresh_token: stolen }) });
  assert.deepEqual([refused.status, app.alive.size], [401, 0]);
});

test("a token that still works is used while the exchange fails", async () => {
  const client = await tab();
  await client.auth.anonymous();
  later(14.5 * MINUTE);
  app.rule = ({ line }) => (line.includes("refresh") ? [500, "oops"] : undefined);
  assert.equal((await todos(client).get("one")).as, "usr_1");
});

/** Holds back every exchange of a token until `release` is called. */
function holdExchanges() {
  let release;
  const held = new Promise((go) => (release = go));
  app.rule = async ({ line }) => void (line.includes("refresh") && (await held));
  return release;
}

test("signing out while a token is being exchanged stays signed out", async () => {
  const [one, two] = [await tab(), await tab()];
  await one.auth.anonymous();
  later(16 * MINUTE);
  const release = holdExchanges();
  const request = todos(one).get("one").catch((error) => error);
  const out = two.auth.logout();
  release();
  await Promise.all([request, out]);
  assert.deepEqual([one.auth.user, two.auth.user, stored(), app.alive.size, refreshes()], [null, null, null, 0, 1]);
});

test("signing in while a token is being exchanged is not undone by it", async () => {
  const [one, two] = [await tab(), await tab()];
  await one.auth.anonymous();
  later(16 * MINUTE);
  const release = holdExchanges();
  const request = todos(one).get("one").catch((error) => error);
  const entered = two.auth.login({ email: "b@x.test", password: "right" });
  // Without the lock it would have been answered long before these are.
  for (let i = 0; i < 5; i += 1) await (await fetch(`${app.url}/_/db/todos/one`)).json();
  assert.deepEqual([refreshes(), app.count("POST /_/auth/login")], [1, 0]);
  release();
  await Promise.all([request, entered]);
  assert.deepEqual([one.auth.user.email, two.auth.user.email], ["b@x.test", "b@x.test"]);
});

test("a request of one user is not repeated as another", async () => {
  const [one, two] = [await tab(), await tab()];
  await one.auth.login({ email: "a@x.test", password: "right" });
  let entered;
  app.rule = async ({ line }) => {
    if (!line.startsWith("DELETE") || entered) return undefined;
    entered = await two.auth.login({ email: "b@x.test", password: "right" });
    return [401, { code: "unauthenticated", message: "signed out meanwhile" }];
  };
  await assert.rejects(todos(one).delete("one"), { status: 401, message: "the session has ended" });
  assert.equal(app.count("DELETE /_/db/todos/one"), 1);
  assert.equal(one.auth.user.email, "b@x.test");
});

test("signing up as an anonymous user keeps the user, as an account makes another", async () => {
  const client = await tab();
  const guest = await client.auth.anonymous();
  later(20 * MINUTE);
  const account = await client.auth.signUp({ email: "a@x.test", password: "right", role: "admin" });
  assert.deepEqual([account.id, account.email, account.anonymous], [guest.id, "a@x.test", false]);
  const signup = app.seen.at(-1);
  assert.deepEqual([signup.bearer, signup.body], ["access-2", { email: "a@x.test", password: "right" }]);
  const other = await client.auth.signUp({ email: "b@x.test", password: "right" });
  assert.notEqual(other.id, guest.id);
  assert.equal(app.seen.at(-1).bearer, undefined);
});

test("a wrong password keeps the session there is", async () => {
  const client = await tab();
  await client.auth.anonymous();
  await assert.rejects(client.auth.login({ email: "a@x.test", password: "wrong" }), { status: 401 });
  assert.equal(client.auth.user.id, "usr_1");
  assert.equal(refreshes(), 0);
});

test("signing out forgets the session even where the server does not hear it", async () => {
  const client = await tab();
  await client.auth.anonymous();
  await client.auth.logout({ everywhere: true });
  assert.deepEqual([app.seen.at(-1).line, app.seen.at(-1).body], ["POST /_/auth/logout", { everywhere: true }]);
  assert.deepEqual([client.auth.user, stored()], [null, null]);
  await client.auth.anonymous();
  app.rule = () => [0];
  await assert.rejects(client.auth.logout(), { status: 0 });
  assert.deepEqual([client.auth.user, stored()], [null, null]);
  await client.auth.logout();
});

test("signing out ends a session whose access token has ended", async () => {
  const client = await tab();
  await client.auth.anonymous();
  app.spoilAccess();
  await client.auth.logout();
  assert.deepEqual(app.seen.slice(1).map(({ line }) => line), ["POST /_/auth/logout", "POST /_/auth/refresh", "POST /_/auth/logout"]);
  assert.deepEqual([client.auth.user, app.alive.size], [null, 0]);
  await client.auth.anonymous();
  app.endAll();
  await client.auth.logout();
  assert.equal(client.auth.user, null);
});

test("whoever signs out is signed out before the server has answered", async () => {
  const client = await tab();
  await client.auth.anonymous();
  let during;
  app.rule = ({ line }) => void (line.endsWith("logout") && (during = stored()));
  await client.auth.logout();
  assert.equal(during, null);
});

test("changes are told once, in every tab, until one stops listening", async () => {
  const [one, two] = [await tab(), await tab()];
  const told = { one: [], two: [] };
  const stop = one.auth.onChange((user) => told.one.push(user?.id ?? null));
  two.auth.onChange((user) => told.two.push(user?.id ?? null));
  const change = (key) => events.dispatchEvent(Object.assign(new Event("storage"), { key }));
  await one.auth.anonymous();
  change("another");
  await two.auth.ready;
  assert.deepEqual(told, { one: ["usr_1"], two: [] });
  change(`app:${app.url}`);
  later(16 * MINUTE);
  await todos(one).get("one");
  change(`app:${app.url}`);
  stop();
  await one.auth.logout();
  change(null);
  await two.auth.ready;
  assert.deepEqual(told, { one: ["usr_1"], two: ["usr_1", null] });
});

test("a listener that throws stops neither the others nor the sign-in", async () => {
  const client = await tab();
  const told = [];
  const thrown = [];
  const plain = queueMicrotask;
  // The browser reports what a microtask throws; here it would be the end of the test run.
  const reporting = (task) => plain(() => {
    try {
      task();
    } catch (error) {
      thrown.push(error.message);
    }
  });
  const watched = mock.method(globalThis, "queueMicrotask", reporting);
  client.auth.onChange(() => {
    throw new Error("mine");
  });
  client.auth.onChange((user) => told.push(user.id));
  assert.equal((await client.auth.anonymous()).id, "usr_1");
  watched.mock.restore();
  assert.deepEqual([thrown, told], [["mine"], ["usr_1"]]);
});

for (const [what, broken] of [
  ["has none", () => undefined],
  ["is refused", () => { throw new DOMException("denied", "SecurityError"); }],
  ["is full", () => ({ ...storage, setItem() { throw new DOMException("full", "QuotaExceededError"); } })],
]) {
  test(`a page whose storage ${what} keeps its session in memory`, async () => {
    Object.defineProperty(globalThis, "localStorage", { get: broken, configurable: true });
    const client = await tab();
    await client.auth.anonymous();
    assert.equal((await todos(client).get("one")).as, "usr_1");
    later(16 * MINUTE);
    assert.equal((await todos(client).get("one")).as, "usr_1");
    assert.equal((await tab()).auth.user, null);
    await client.auth.logout();
    assert.equal(client.auth.user, null);
  });
}

test("what stands in storage and is no session counts as none", async () => {
  storage.setItem(`app:${app.url}`, "{ half");
  const client = await tab();
  assert.equal(await client.auth.ready, null);
  await client.auth.anonymous();
  assert.equal(stored().user.id, "usr_1");
});

test("another origin gets the key, and no cookie of the page", async () => {
  const client = await tab({ key: "pk_1" });
  await todos(client).get("one");
  assert.equal(app.seen[0].headers["steading-key"], "pk_1");
  assert.equal(app.seen[0].headers.cookie, undefined);
});

test("a problem arrives whole, and what is no answer of the app is said to be one", async () => {
  const client = await tab();
  const error = await todos(client).get("two").catch((error) => error);
  const { name, status, code, message, hint, field, requestId } = error;
  assert.deepEqual({ name, status, code, message, hint, field, requestId }, {
    name: "AppError", status: 404, code: "not_found", message: "no such thing", hint: "look elsewhere",
    field: "/table", requestId: "req_1",
  });
  app.rule = () => [502, "<h1>Bad gateway</h1>"];
  await assert.rejects(todos(client).get("one"), { status: 502, code: "unavailable" });
  app.rule = () => [200, "<h1>Sign in to the train's network</h1>"];
  await assert.rejects(todos(client).get("one"), { name: "AppError", status: 200 });
});
