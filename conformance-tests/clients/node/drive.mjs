// Drives the TypeScript SDK's clients, 1.x and 2.x: the first line of input says where to connect, each other is a
// tool call. Answers with one line each: first what the client learnt of the server, then what it made of each call.
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
const { StdioClientTransport } = await import(first ? `${sdk}/stdio.js` : "@modelcontextprotocol/client/stdio");

let seen;
const fetchSeen = async (url, init) => {
  seen ??= new Headers(init?.headers).get("mcp-protocol-version") ?? undefined;
  return fetch(url, init);
};
const transport = target.url
  ? new StreamableHTTPClientTransport(new URL(target.url), {
      fetch: fetchSeen,
      requestInit: { headers: { Authorization: `Bearer ${target.key}` } },
    })
  : new StdioClientTransport({ command: target.command, args: target.args, env: target.variables });

const client = new Client(
  { name: "conformance", version: "1.0.0" },
  first ? {} : { versionNegotiation: { mode: target.mode }, supportedProtocolVersions: target.versions },
);
await client.connect(transport);
const { tools } = await client.listTools();
const prompts = {};
for (const { name } of (await client.listPrompts()).prompts) {
  const { messages } = await client.getPrompt({ name });
  prompts[name] = messages.map((message) => message.content.text).join("");
}
say({
  protocol: first ? (transport.protocolVersion ?? seen) : client.getNegotiatedProtocolVersion(),
  instructions: client.getInstructions(),
  prompts,
  tools: tools.map((tool) => tool.name),
  without_output_schema: tools.filter((tool) => !tool.outputSchema).map((tool) => tool.name),
});

const call = async ({ tool, arguments: input, progress }) => {
  const steps = [];
  const onprogress = ({ progress, total, message }) => steps.push({ done: progress, total, message });
  const options = progress ? { onprogress } : {};
  const request = { name: tool, arguments: input };
  try {
    const result = first
      ? await client.callTool(request, undefined, options)
      : await client.callTool(request, options);
    return {
      failed: result.isError ?? false,
      structured: result.structuredContent ?? null,
      content: result.content,
      steps,
    };
  } catch (error) {
    return { thrown: `${error.name}: ${error.message}` };
  }
};

for await (const line of lines) {
  say(await call(JSON.parse(line)));
}
await client.close();
