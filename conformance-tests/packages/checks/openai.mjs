import assert from "node:assert/strict";
import OpenAI from "openai";
import { checked, serving } from "./local.mjs";

const chunk = (content) => `data: ${JSON.stringify({ id: "1", object: "chat.completion.chunk", choices: [{ index: 0, delta: { content } }] })}\n\n`;

export default checked(() =>
  serving(
    (request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(chunk("he"));
      setTimeout(() => response.end(`${chunk("llo")}data: [DONE]\n\n`), 5);
    },
    async (baseURL) => {
      const client = new OpenAI({ apiKey: "none", baseURL });
      let text = "";
      for await (const part of await client.chat.completions.create({ model: "m", messages: [], stream: true })) text += part.choices[0].delta.content;
      assert.equal(text, "hello");
    },
  ),
);
