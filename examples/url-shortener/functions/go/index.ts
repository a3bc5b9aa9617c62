// Leads from a short link to where it points, and counts that somebody has gone there.
export default {
  async fetch(request: Request, env: any, ctx: any): Promise<Response> {
    const code = new URL(request.url).pathname.split("/").pop() ?? "";
    const links = env.db("links");
    const { rows } = await links.list({ where: env.db.where`code == ${code}`, limit: 1 });
    if (rows.length === 0) return new Response("There is no such link.\n", { status: 404 });
    // Nobody waits for the count.
    ctx.waitUntil(count(links, rows[0].id));
    return new Response(null, { status: 302, headers: { location: rows[0].url, "cache-control": "no-store" } });
  },
};

async function count(links: any, id: string): Promise<void> {
  for (let attempt = 0; attempt < 5; attempt++) {
    const link = await links.get(id);
    try {
      await links.update(id, { visits: link.visits + 1 }, { ifMatch: link });
      return;
    } catch (error: any) {
      // Somebody else was counted between the two.
      if (error.status !== 412) throw error;
    }
  }
}
