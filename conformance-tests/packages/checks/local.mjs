// A server on this machine for what a package wants to ask, and an end to it.

import { createServer } from "node:http";

/** Serves `handler(request, response, body)` while `use(url)` runs. */
export async function serving(handler, use) {
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const part of request) body += part;
    handler(request, response, body);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  try {
    return await use(`http://127.0.0.1:${server.address().port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

/** The port that a server of the package's own has taken. */
export async function listening(server) {
  if (!server.listening) await new Promise((done) => server.once("listening", done));
  return server.address().port;
}

export const json = (response, value, status = 200) => {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(value));
};

/** A function that answers `ok` if `check` passes. */
export const checked = (check) => ({
  async fetch(request, env, ctx) {
    await check({ request, env, ctx });
    return new Response("ok");
  },
});
