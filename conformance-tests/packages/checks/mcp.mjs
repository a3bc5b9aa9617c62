import assert from "node:assert/strict";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { InMemoryTransport } from "@modelcontextprotocol/sdk/inMemory.js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { z } from "zod";
import { checked } from "./local.mjs";

export default checked(async () => {
  const server = new McpServer({ name: "s", version: "1" });
  server.registerTool("add", { inputSchema: { a: z.number(), b: z.number() } }, ({ a, b }) => ({ content: [{ type: "text", text: `${a + b}` }] }));
  const client = new Client({ name: "c", version: "1" });
  const [left, right] = InMemoryTransport.createLinkedPair();
  await Promise.all([server.connect(left), client.connect(right)]);
  assert.equal((await client.callTool({ name: "add", arguments: { a: 1, b: 2 } })).content[0].text, "3");
  await client.close();
});
