// An app that keeps the promises of `/_/auth` and `/_/db` in memory, and writes down what it was asked.
import { createServer } from "node:http";

/** Starts it; `app.rule` may answer a request before the app does, with `[status, body]`; what
 * `app.lose` says is done, and its answer lost. */
export async function startApp() {
  const app = { seen: [], lifetime: 900, rule: () => undefined, lose: () => false, alive: new Map(), spent: new Map(), users: 0, tokens: 0 };

  app.session = (user, family) => {
    const n = (app.tokens += 1);
    const pair = { access: `access-${n}`, refresh: `refresh-${n}`, user, family };
    for (const [refresh, old] of app.alive) {
      if (old.family === family) {
        app.alive.delete(refresh);
        app.spent.set(refresh, old);
      }
    }
    app.alive.set(pair.refresh, pair);
    return { access_token: pair.access, token_type: "Bearer", refresh_token: pair.refresh, expires_in: app.lifetime, user };
  };
  app.newUser = (email) => {
    const n = (app.users += 1);
    return { id: `usr_${n}`, email, role: "user", anonymous: email === null, created_at: "2026-01-01T00:00:00.000Z" };
  };
  /** Ends every session, as an operator or a thief's replay does. */
  app.endAll = () => app.alive.clear();
  /** Makes access tokens wrong before their time. */
  app.spoilAccess = () => app.alive.forEach((pair) => (pair.access = "spoilt"));
  app.count = (line) => app.seen.filter((request) => request.line === line).length;

  const problem = (status, code, message, more) => [status, { type: "about:blank", title: "t", status, code, message, request_id: "req_1", ...more }];
  const refused = problem(401, "unauthenticated", "the access token is not valid");

  function refresh({ refresh_token, attempt }) {
    const pair = app.alive.get(refresh_token);
    const stolen = app.spent.get(refresh_token);
    const next = [...app.alive.values()].find((other) => stolen && other.family === stolen.family);
    // The answer that brought `next` was lost where the same attempt comes for the same token again.
    if (next && next.from === refresh_token && next.attempt === attempt) app.alive.delete(next.refresh);
    else if (!pair) {
      for (const [token, other] of app.alive) if (other.family === stolen?.family) app.alive.delete(token);
      return refused;
    }
    const { user, family } = pair ?? stolen;
    const session = app.session(user, family);
    Object.assign(app.alive.get(session.refresh_token), { from: refresh_token, attempt });
    return [200, session];
  }

  function answer({ line, body, bearer }) {
    if (line === "POST /_/auth/refresh") return refresh(body);
    const held = [...app.alive.values()].find((pair) => pair.access === bearer);
    if (bearer && !held) return refused;
    switch (line) {
      case "POST /_/auth/anonymous":
        return [201, app.session(app.newUser(null), Symbol())];
      case "POST /_/auth/signup":
        if (held) return [201, app.session({ ...held.user, email: body.email, anonymous: false }, held.family)];
        return [201, app.session(app.newUser(body.email), Symbol())];
      case "POST /_/auth/login":
        if (body.password !== "right") return problem(401, "unauthenticated", "wrong address or password");
        return [200, app.session(app.newUser(body.email), Symbol())];
      case "POST /_/auth/logout":
        app.alive.delete(held?.refresh);
        return [204];
      case "GET /_/db/todos/one":
        return [200, { id: "one", as: held?.user.id ?? null }, { etag: '"v1"' }];
    }
    return problem(404, "not_found", "no such thing", { hint: "look elsewhere", field: "/table" });
  }

  const server = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    const bearer = request.headers.authorization?.replace("Bearer ", "");
    const seen = { line: `${request.method} ${request.url}`, headers: request.headers, bearer, body: text && JSON.parse(text) };
    app.seen.push(seen);
    const [status, body, headers] = (await app.rule(seen)) ?? answer(seen);
    if (status === 0 || app.lose(seen)) return request.socket.destroy();
    response.writeHead(status, { "content-type": "application/json", connection: "close", ...headers });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  app.url = `http://127.0.0.1:${server.address().port}`;
  app.stop = () => new Promise((stopped) => server.close(stopped));
  return app;
}
