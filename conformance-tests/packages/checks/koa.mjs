import assert from "node:assert/strict";
import Koa from "koa";
import { checked, listening } from "./local.mjs";

export default checked(async () => {
  const app = new Koa();
  app.use(async (context, next) => {
    await next();
    context.set("x-after", "1");
  });
  app.use((context) => void (context.body = { path: context.path }));
  const server = app.listen(0, "127.0.0.1");
  const answer = await fetch(`http://127.0.0.1:${await listening(server)}/a`);
  assert.deepEqual([answer.headers.get("x-after"), await answer.json()], ["1", { path: "/a" }]);
  server.closeAllConnections();
  server.close();
});
