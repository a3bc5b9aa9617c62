// The TypeScript SDK's clients, 1.x and 2.x, as a program that signs in: the first line of input says where to connect. Says
// the address that its user has to open, reads the one that the user was sent back to, and then tells what a tool answers.
import { createInterface } from "node:readline";

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const target = JSON.parse((await lines.next()).value);
const say = (thing) => console.log(JSON.stringify(thing));

const first = target.sdk === 1;
const sdk = "@modelcontextprotocol/sdk/client";
const { Client } = await import(first ? `${sdk}/index.js` : "@modelcontextprotocol/client");
const { StreamableHTTPClientTransport } = await import(
  first ? `${sdk}/streamableHttp.js` : "@modelcontextprotocol/client"
);

const redirectUrl = "http://localhost:38119/callback";
let information, tokens, verifier;
const authProvider = {
  redirectUrl,
  clientMetadata: {
    client_name: "conformance",
    redirect_uris: [redirectUrl],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  },
  clientInformation: () => information,
  saveClientInformation: (made) => { information = made; },
  tokens: () => tokens,
  saveTokens: (given) => { tokens = given; },
  redirectToAuthorization: (url) => say({ open: url.href }),
  saveCodeVerifier: (made) => { verifier = made; },
  codeVerifier: () => verifier,
};

const connect = async () => {
  const transport = new StreamableHTTPClientTransport(new URL(target.url), { authProvider });
  const client = new Client({ name: "conformance", version: "1.0.0" });
  try {
    await client.connect(transport);
    return { client };
  } catch (error) {
    return { transport, error };
  }
};

let { client, transport, error } = await connect();
if (!transport) throw new Error("it was let in without a credential");
if (!/unauthorized/i.test(`${error.name} ${error.constructor.name} ${error.message}`)) throw error;
const back = new URL(JSON.parse((await lines.next()).value).back).searchParams;
await (first ? transport.finishAuth(back.get("code")) : transport.finishAuth(back));
({ client, error } = await connect());
if (!client) throw error;
// The next call is made with a refreshed token.
tokens = { ...tokens, access_token: `${tokens.access_token}x` };
const { content } = await client.callTool({ name: "app_describe", arguments: {} });
say({ told: content.map((block) => block.text).join("") });
await client.close();
process.exit(0);
