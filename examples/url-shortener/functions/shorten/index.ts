// Makes a short link for whoever is signed in. It writes with the function's own rights: nobody else may make links, so that
// each of them has gone through here.
import { customAlphabet } from "nanoid";

// Without letters that are taken for others when somebody reads them aloud.
const code = customAlphabet("23456789abcdefghjkmnpqrstuvwxyz", 7);

export default {
  async fetch(request: Request, env: any, ctx: any): Promise<Response> {
    if (request.method !== "POST") return Response.json({ message: "send a POST" }, { status: 405 });
    const { url } = await request.json().catch(() => ({}));
    if (!isWeb(url)) return Response.json({ message: "that is no address of a web page" }, { status: 400 });
    const link = await env.db("links").create({ code: code(), url, owner: ctx.user.id });
    return Response.json({ code: link.code, url: link.url }, { status: 201 });
  },
};

function isWeb(text: unknown): text is string {
  if (typeof text !== "string" || text.length > 2000 || !URL.canParse(text)) return false;
  return ["https:", "http:"].includes(new URL(text).protocol);
}
