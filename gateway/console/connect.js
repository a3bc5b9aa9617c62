// How agents and people get here, with this platform's own address.

import { get, here, may } from "./api.js";
import { code, el, link } from "./dom.js";
import { card, copied, heading, later } from "./parts.js";

export default {
  id: "connect",
  title: "Connect",
  icon: "connect",
  page() {
    const base = here.session.url;
    const shown = (slug) => {
      const address = `${base}/mcp${slug ? `/${slug}` : ""}`;
      const config = JSON.stringify({ mcpServers: { steading: { type: "http", url: address } } }, null, 2);
      return [
        card("Claude Code", el("p", {}, "No key is needed: sign in with ", code("/mcp"), " in a session, and choose what it may do."), copied(`claude mcp add --transport http steading ${address}`), copied("claude mcp login steading")),
        card("Any other MCP client", el("p", {}, "Streamable HTTP at this address. Clients that can sign in are sent to a page of this platform; others take a key or a short-lived credential as a bearer token."), copied(address), copied(config)),
        card("The command line", copied(`steading login ${base}`), copied(`STEADING_URL=${base} steading env list`)),
        card("Programs", el("p", {}, "Every tool is a route with JSON. The whole API is described by ", el("a", { href: "/v1/openapi.json" }, "/v1/openapi.json"), "."),
          copied(`curl ${base}/v1/tools/app_describe -H "Authorization: Bearer $STEADING_KEY" ${slug ? `-H "Steading-Env: ${slug}" ` : ""}--json '{}'`),
          el("p", {}, "Give a program ", link("/keys", "a short-lived credential"), " for what it does.")),
      ];
    };
    const chosen = later(async () => {
      if (here.session.env || !may("env:read")) return shown(here.session.env);
      const { environments } = await get("/v1/envs");
      const place = el("div", { class: "later" }, shown(environments[0]?.slug));
      const choose = el("select", { "aria-label": "Environment", on: { change: (event) => place.replaceChildren(...shown(event.target.value)) } },
        environments.map((env) => el("option", { value: env.slug }, env.slug)), el("option", { value: "" }, "None: the client chooses"));
      return [el("div", { class: "filters" }, el("span", { class: "faint" }, "Environment"), choose), place];
    });
    return [heading("Connect", "An agent, a program or a terminal."), chosen];
  },
};
