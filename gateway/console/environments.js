// Environments: each is an app's place, with a database, files, functions and an address of its own.

import { get, here, may, send } from "./api.js";
import { asked, field } from "./dialogs.js";
import { code, el, link, outward, said } from "./dom.js";
import { environment } from "./environment.js";
import { when } from "./format.js";
import { button, empty, heading, lacking, listed, tags, toast } from "./parts.js";
import { filled, pairs } from "./tenants.js";

async function make({ go }) {
  const made = await asked({
    title: "New environment", submit: "Make it",
    fields: [
      field({ name: "name", label: "Name", autofocus: true }),
      field({ name: "slug", label: "Slug", pattern: "[a-z0-9\\-]+", hint: "The first part of its address; made up where it is left out." }),
      field({ name: "external_id", label: "External id", hint: "What your own system calls it; the same again gives the same environment." }),
      field({ name: "tags", label: "Tags", placeholder: "stage=test" }),
    ],
    work: (form) => send("POST", "/v1/envs", { ...filled(form, ["name", "slug", "external_id"]), tags: pairs(form.get("tags")) }),
  });
  if (made) {
    toast(`Environment ${made.slug} is made`);
    go(`/environments/${encodeURIComponent(made.slug)}`);
  }
}

export default {
  id: "environments",
  title: "Environments",
  icon: "environments",
  page(cx) {
    const [name] = cx.path;
    if (name) return environment(name, cx);
    if (here.session.env) {
      return [heading("Environments", "Your key is bound to one."), empty("One environment", "Its releases, logs and usage:", link(`/environments/${here.session.env}`, "Open it"))];
    }
    if (!may("env:read")) return [heading("Environments"), lacking("env:read", "list environments")];
    const columns = [
      { label: "Environment", kind: "first", cell: (it) => [link(`/environments/${encodeURIComponent(it.slug)}`, said(it.name || it.slug, 80)), code(it.slug)] },
      { label: "Address", cell: (it) => outward(it.url) },
      { label: "Tags", cell: (it) => tags(it.tags) },
      { label: "External id", cell: (it) => (it.external_id ? code(it.external_id, 60) : el("span", { class: "faint" }, "–")) },
      { label: "Made", cell: (it) => when(it.created_at) },
    ];
    const load = async (cursor) => {
      const page = await get("/v1/envs", { cursor });
      return { rows: page.environments, cursor: page.cursor };
    };
    const begin = may("env:write") ? button("New environment", () => make(cx), "primary", "plus") : null;
    const none = empty("There is no environment yet", "Make one, or let an agent do it: it calls env_create.", link("/connect", "How to connect an agent"));
    return [heading("Environments", "Each has a database, files, functions and an address of its own.", ...(begin ? [begin] : [])), listed("Environments", columns, load, none)];
  },
};
