// An OpenID provider of the caller's own: `node provider.mjs <port> <client id> <client secret>`. Who signs in, and
// whether they agree, is asked on a page; `POST /control` with {"accounts"} says who there is, and with {"rotate": true} makes new keys.
import { createServer } from "node:http";
import { generateKeyPairSync } from "node:crypto";
import Provider from "oidc-provider";

const [port, clientId, clientSecret] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
let accounts = {};
let handler;
let provider;
let generation = 0;

function make(redirects) {
  generation += 1;
  const key = (kind, options, more) => ({
    ...generateKeyPairSync(kind, options).privateKey.export({ format: "jwk" }),
    kid: `${kind}-${generation}`,
    use: "sig",
    ...more,
  });
  provider = new Provider(issuer, {
    clients: [{ client_id: clientId, client_secret: clientSecret, redirect_uris: redirects }],
    jwks: { keys: [key("rsa", { modulusLength: 2048 }, { alg: "RS256" })] },
    cookies: { keys: ["one", "two"] },
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name", "groups", "org"] },
    features: { devInteractions: { enabled: false } },
    findAccount: (_, id) => accounts[id] && { accountId: id, claims: () => ({ sub: id, ...accounts[id] }) },
    interactions: { url: (_, { uid }) => `/interaction/${uid}` },
    // Who has agreed to sign in has agreed to what the app asks for.
    async loadExistingGrant(ctx) {
      const { session, client } = ctx.oidc;
      const grant = new ctx.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
      grant.addOIDCScope("openid email profile");
      await grant.save();
      return grant;
    },
  });
  provider.on("server_error", (_, error) => console.error(error));
  handler = provider.callback();
}

const body = async (request) => {
  let text = "";
  for await (const part of request) text += part;
  return text;
};

async function answer(request, response) {
  const { pathname } = new URL(request.url, issuer);
  if (pathname === "/control") {
    const said = JSON.parse(await body(request));
    accounts = said.accounts ?? accounts;
    if (said.redirects) make(said.redirects);
    return response.end("{}");
  }
  if (!pathname.startsWith("/interaction/")) return handler(request, response);
  if (request.method === "GET") {
    response.setHeader("content-type", "text/html");
    return response.end(
      `<form method=post><input name=login><button id=go>Go on</button><button id=no name=no value=1>No</button></form>`,
    );
  }
  const form = new URLSearchParams(await body(request));
  const result = form.has("no") ? { error: "access_denied" } : { login: { accountId: form.get("login") } };
  return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

make([]);
const server = createServer((request, response) => {
  answer(request, response).catch((error) => {
    console.error(error);
    response.statusCode = 500;
    response.end();
  });
});
server.listen(Number(port), "127.0.0.1");
