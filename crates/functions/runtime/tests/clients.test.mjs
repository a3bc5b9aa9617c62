// `env.db`, `env.files`, `env.fn` and `env.ai`: what they ask on the host's socket, and what becomes of the answers.

import assert from "node:assert/strict";
import { both, platform } from "./harness.mjs";

/** A function whose request body is code that is run with env and ctx; its value comes back. */
const run = `export default async (request, env, ctx) => {
  const code = await request.text();
  try { return Response.json({ value: (await eval("(async () => {" + code + "})()")) ?? null }); }
  catch (error) { const { name, message, status, code, hint, field, requestId } = error; return Response.json({ error: { name, message, status, code, hint, field, requestId } }); }
};`;

const json = (response, status, value, headers = {}) => {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(value));
};

async function ready({ up }, answer) {
  const host = await platform(answer);
  const fn = await up(run, { platform: { sock: host.sock } });
  const value = async (code, options) => {
    const answer = (await fn.ask("/", { method: "POST", body: code, ...options })).json();
    if (answer.error) throw Object.assign(new Error(answer.error.message), answer.error);
    return answer.value;
  };
  return { fn, host, value };
}

/** What was asked, without what every HTTP client adds. */
const brief = ({ method, url, headers, body }) => [method, url, body === "" ? null : body, headers["steading-fn-request"], headers["steading-fn-rights"]];

both("rows: the browser's names, in both orders", async (t) => {
  const { host, value } = await ready(t, ({ method, url }, response) =>
    method === "DELETE" ? response.writeHead(204).end() : json(response, 200, url.endsWith("/query") ? { rows: [{ id: "1" }] } : { id: "1", url }, { etag: '"v1"' }));
  const page = await value("return env.db('todos').list({ where: env.db.where`done == ${false} && title == ${'a\"b'}`, order: ['-created_at', 'id'], select: ['id'], limit: 5, expand: 'list' });");
  assert.deepEqual(page, { rows: [{ id: "1" }] });
  await value("return env.db.list('todos');");
  await value("return env.db('todos').get('r-1', { expand: ['list', 'x'] });");
  await value("const row = await env.db.create('todos', { title: 'x' }, { idempotencyKey: 'k' }); await env.db('todos').update('1', { done: true }, { ifMatch: row }); await env.db.delete('todos', '1', { ifMatch: '\"v0\"' });");
  assert.deepEqual(host.asked.map(brief), [
    ["POST", "/_/db/todos/query", '{"where":"done == false && title == \\"a\\\\\\"b\\"","select":"id","order":"-created_at,id","expand":"list","limit":5}', "req_1", undefined],
    ["POST", "/_/db/todos/query", "{}", "req_1", undefined],
    ["GET", "/_/db/todos/r-1?expand=list%2Cx", null, "req_1", undefined],
    ["POST", "/_/db/todos", '{"title":"x"}', "req_1", undefined],
    ["PATCH", "/_/db/todos/1", '{"done":true}', "req_1", undefined],
    ["DELETE", "/_/db/todos/1", null, "req_1", undefined],
  ]);
  assert.equal(host.asked[3].headers["idempotency-key"], "k");
  assert.equal(host.asked[4].headers["if-match"], '"v1"');
  assert.equal(host.asked[5].headers["if-match"], '"v0"');
  for (const { headers } of host.asked) assert.equal(headers.authorization, undefined);
});

both("batches, pages, upserts and aggregates", async (t) => {
  let pages = 0;
  const { host, value } = await ready(t, ({ url }, response) =>
    json(response, 200, url === "/_/batch" ? { results: [{ status: 201, row: { id: "1" }, etag: '"b"' }] } : url.endsWith("/query") ? (pages++ === 0 ? { rows: [1, 2], cursor: "c" } : { rows: [3] }) : { id: "1" }));
  assert.deepEqual(await value("return env.db.batch([{ do: 'create', on: 'todos', new: { title: 'x' } }, { do: 'delete', on: 'todos', id: '2', ifMatch: '\"v\"' }]);"), [{ status: 201, row: { id: "1" }, etag: '"b"' }]);
  assert.deepEqual(await value("const all = []; for await (const row of env.db('todos').all({ order: 'id' })) all.push(row); return all;"), [1, 2, 3]);
  await value("await env.db('todos').upsert({ slug: 'a' }, { by: ['slug'] }); await env.db.put('todos', '1', {}); await env.db('todos').aggregate({ n: 'count' }, { group: ['done'] });");
  assert.deepEqual(host.asked.map(({ method, url, body }) => [method, url, body]), [
    ["POST", "/_/batch", '{"operations":[{"do":"create","on":"todos","new":{"title":"x"}},{"do":"delete","on":"todos","id":"2","if_match":"\\"v\\""}]}'],
    ["POST", "/_/db/todos/query", '{"order":"id","limit":200}'],
    ["POST", "/_/db/todos/query", '{"order":"id","limit":200,"cursor":"c"}'],
    ["PUT", "/_/db/todos?by=slug", '{"slug":"a"}'],
    ["PUT", "/_/db/todos/1", "{}"],
    ["POST", "/_/db/todos/query", '{"group":["done"],"aggregate":{"n":"count"}}'],
  ]);
});

both("the caller's rights are asked for by the request's id", async (t) => {
  const { host, value } = await ready(t, (call, response) => json(response, 200, { rows: [] }));
  await value("await ctx.db('todos').list(); await env.db.asCaller(ctx).list('todos'); await ctx.files('b').list(); await ctx.fn('other').invoke(); await env.db.list('todos');", { id: "req_9" });
  assert.deepEqual(host.asked.map(({ headers }) => [headers["steading-fn-request"], headers["steading-fn-rights"]]), [...Array(4).fill(["req_9", "caller"]), ["req_9", undefined]]);
});

both("a refusal is an AppError with its code and hint, as in the browser", async (t) => {
  const problem = { code: "forbidden", message: "this row is another's", hint: "sign in", field: "/x", request_id: "req_p" };
  const { value } = await ready(t, ({ url }, response) => (url.endsWith("/text") ? response.writeHead(502).end("<html>") : json(response, 403, problem)));
  await assert.rejects(value("await env.db('todos').get('1');"), { name: "AppError", message: problem.message, status: 403, code: "forbidden", hint: "sign in", field: "/x", requestId: "req_p" });
  await assert.rejects(value("await env.fn('f').invoke();"), { status: 403, code: "forbidden" });
  await assert.rejects(value("await env.db('todos').get('text');"), { name: "AppError", status: 502, code: "unavailable" });
  await assert.rejects(value("await env.db('../auth').list();"), { name: "TypeError" });
  await assert.rejects(value("await env.files('b').download('../x');"), { name: "TypeError" });
  await assert.rejects(value("env.db.where`x == ${{}}`"), { name: "TypeError" });
});

both("without a platform, or with one that is gone, it says so", async (t) => {
  const fn = await t.up(run);
  const gone = await t.up(run, { platform: { sock: "/nowhere/platform.sock" } });
  for (const instance of [fn, gone]) {
    const { error } = (await instance.ask("/", { method: "POST", body: "await env.db('todos').list();" })).json();
    assert.deepEqual([error.name, error.status, error.code], ["AppError", 0, "unavailable"]);
  }
});

both("files: bytes both ways, conditions, and streams", async (t) => {
  const bytes = Buffer.from([0, 1, 255, 254]);
  const { host, value } = await ready(t, ({ method, url }, response) => {
    if (method === "GET" && url.includes("/a%20b/")) return response.writeHead(200, { "content-type": "image/x" }).end(bytes);
    if (url.endsWith("/sign")) return json(response, 200, { url: "/_/files/pics/a?sig=1" });
    if (method === "DELETE") return response.writeHead(204).end();
    json(response, 200, { files: [], path: "x" });
  });
  await value("await env.files('pics').upload('a b/ü.txt', 'häl', { type: 'text/plain', metadata: { n: 'é' }, ifAbsent: true });");
  await value("await env.files.upload('pics', 'b', new Blob(['blob'], { type: 'text/x' }), { ifMatch: '\"e\"' }); await env.files('pics').upload('c', new Uint8Array([65]));");
  await value("await env.files('pics').upload('d', new ReadableStream({ start(c) { c.enqueue(new Uint8Array([66, 67])); c.close(); } }));");
  assert.deepEqual(await value("const blob = await env.files('pics').download('a b/x', { w: 5 }); return [blob.type, ...new Uint8Array(await blob.arrayBuffer())];"), ["image/x", 0, 1, 255, 254]);
  assert.deepEqual(await value("const answer = await env.files('pics').fetch('a b/x'); return [answer.status, answer.headers.get('content-type'), (await answer.arrayBuffer()).byteLength];"), [200, "image/x", 4]);
  assert.equal(await value("return env.files('pics').sign('a', { w: 3 });"), "https://shop.example/_/files/pics/a?sig=1&w=3");
  assert.equal(await value("return env.files('pics').url('a/b', { download: true });"), "https://shop.example/_/files/pics/a/b?download=");
  await value("await env.files('pics').move('a', 'b'); await env.files('pics').remove('a'); await env.files('pics').list({ prefix: 'x', limit: undefined });");
  assert.deepEqual(host.asked.map(({ method, url, body }) => `${method} ${url} ${method === "GET" ? "" : body}`.trim()), [
    "PUT /_/files/pics/a%20b/%C3%BC.txt häl", "PUT /_/files/pics/b blob", "PUT /_/files/pics/c A", "PUT /_/files/pics/d BC",
    "GET /_/files/pics/a%20b/x?w=5", "GET /_/files/pics/a%20b/x", 'POST /_/files/pics/a/sign {"method":"get"}',
    'POST /_/files/pics/a/move {"to":"b"}', "DELETE /_/files/pics/a", "GET /_/files/pics?prefix=x",
  ]);
  const [first, second] = host.asked;
  assert.deepEqual([first.headers["content-type"], first.headers["file-metadata"], first.headers["if-none-match"]], ["text/plain", '{"n":"\\u00e9"}', "*"]);
  assert.deepEqual([second.headers["content-type"], second.headers["if-match"]], ["text/x", '"e"']);
});

both("other functions: values, paths, requests handed on, streamed answers", async (t) => {
  const { host, value } = await ready(t, ({ method, url, body }, response) => {
    if (url.endsWith("/stream")) return response.write("a"), setTimeout(() => response.end("b"), 20);
    json(response, url.endsWith("/made") ? 201 : 200, { method, url, body });
  });
  assert.deepEqual(await value("return env.fn('resize').invoke({ x: 1 });"), { method: "POST", url: "/_/fn/resize", body: '{"x":1}' });
  assert.deepEqual(await value("return (await env.fn('resize').fetch('/a?b=c', { method: 'PUT', body: 'x' })).json();"), { method: "PUT", url: "/_/fn/resize/a?b=c", body: "x" });
  assert.deepEqual(await value("return (await env.fn.fetch('resize', new Request('https://shop.example/made', { method: 'POST', body: 'given' }))).json();"), { method: "POST", url: "/_/fn/resize/made", body: "given" });
  assert.equal(await value("return (await env.fn('resize').fetch('stream')).text();"), "ab");
  assert.equal(host.asked[0].headers["content-type"], "application/json");
});

both("ai: completions whole and in pieces, and OpenAI's own client", async (t) => {
  const { host, value } = await ready(t, ({ body, url }, response) => {
    if (!body || !JSON.parse(body).stream) return json(response, 200, { choices: [{ message: { content: "hello" } }], url });
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write('data: {"choices":[{"delta":{"content":"he"}}]}\n\ndata: {"choices":[{"del');
    setTimeout(() => response.end('ta":{"content":"llo"}}]}\n\n: ping\n\ndata: [DONE]\n\n'), 10);
  });
  assert.equal(await value("const { choices } = await env.ai.chat({ model: 'm', messages: [] }); return choices[0].message.content;"), "hello");
  assert.equal(await value("let text = ''; for await (const chunk of await env.ai.chat.completions.create({ model: 'm', messages: [], stream: true })) text += chunk.choices[0].delta.content; return text;"), "hello");
  assert.equal(await value("const answer = await env.ai.fetch(env.ai.baseURL + '/models', { headers: { authorization: 'Bearer none' } }); return (await answer.json()).url;"), "/v1/models");
  assert.deepEqual(host.asked.map(({ method, url }) => `${method} ${url}`), ["POST /v1/chat/completions", "POST /v1/chat/completions", "GET /v1/models"]);
});

both("ai: a refusal, and an answer that goes wrong or breaks off, are AppErrors", async (t) => {
  const problem = { code: "rate_limited", message: "the day's tokens are used", hint: "tomorrow", error: { message: "other words" } };
  const { value } = await ready(t, ({ body }, response) => {
    const { user } = JSON.parse(body);
    if (user === "refused") return json(response, 429, problem);
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write('data: {"choices":[{"delta":{"content":"he"}}]}\n\n');
    response.end(user === "wrong" ? 'data: {"error":{"message":"the model has failed","code":"unavailable"}}\n\n' : "");
  });
  const stream = (user) => value(`for await (const part of await env.ai.chat({ messages: [], stream: true, user: '${user}' }));`);
  await assert.rejects(stream("refused"), { name: "AppError", status: 429, code: "rate_limited", message: problem.message, hint: "tomorrow" });
  await assert.rejects(stream("wrong"), { name: "AppError", status: 502, code: "unavailable", message: "the model has failed" });
  await assert.rejects(stream("short"), { name: "AppError", status: 502, code: "unavailable", message: "the model's answer broke off" });
});

both("a proxy for the outside does not stand before the platform", async (t) => {
  const host = await platform((call, response) => json(response, 200, { rows: [] }));
  const surroundings = { HTTP_PROXY: "http://127.0.0.1:1", http_proxy: "http://127.0.0.1:1", HTTPS_PROXY: "http://127.0.0.1:1", NODE_USE_ENV_PROXY: "1" };
  const fn = await t.up(run, { platform: { sock: host.sock }, surroundings });
  const answer = await fn.ask("/", { method: "POST", body: "await env.ai.fetch('models'); return env.db('todos').list();" });
  assert.deepEqual(answer.json(), { value: { rows: [] } });
  assert.deepEqual(host.asked.map(({ url }) => url), ["/v1/models", "/_/db/todos/query"]);
});

both("a request can be handed to fetch as it came", async (t) => {
  const { fn, value } = await ready(t, (call, response) => json(response, 200, {}));
  assert.equal(await value("const copy = new Request('data:text/plain,hi'); return (await fetch(copy)).text();"), "hi");
  assert.equal((await fn.ping()).ok, true);
});
