// Tenants, for the operator: made, found, opened, closed, removed.

import { choose, get, here, is_operator, send } from "./api.js";
import { code, el, said } from "./dom.js";
import { asked, field } from "./dialogs.js";
import { when } from "./format.js";
import { badge, button, empty, heading, listed, nothing, tags, toast } from "./parts.js";

/** `a=b, c=d` as an object. */
export function pairs(text) {
  const all = text.split(",").map((pair) => pair.trim()).filter(Boolean);
  return Object.fromEntries(all.map((pair) => [pair.split("=")[0].trim(), pair.split("=").slice(1).join("=").trim()]));
}

/** What a form says, without what was left empty. */
export function filled(form, names) {
  return Object.fromEntries(names.map((name) => [name, (form.get(name) ?? "").trim()]).filter(([, value]) => value !== ""));
}

const KINDS = { active: "good", suspended: "near", deleted: "bad" };

async function make(again) {
  const made = await asked({
    title: "New tenant", submit: "Make it",
    lead: "A customer of the platform, with environments, keys and budgets of its own.",
    fields: [
      field({ name: "name", label: "Name", autofocus: true, hint: "How people call it." }),
      field({ name: "slug", label: "Slug", pattern: "[a-z0-9\\-]+", hint: "Small letters, digits and hyphens; made up where there is an external id." }),
      field({ name: "external_id", label: "External id", hint: "What your own system calls it; the same again gives the same tenant." }),
      field({ name: "tags", label: "Tags", placeholder: "tier=gold, region=eu" }),
    ],
    work: (form) => send("POST", "/v1/tenants", { ...filled(form, ["name", "slug", "external_id"]), tags: pairs(form.get("tags")) }),
  });
  if (made) {
    toast(`Tenant ${made.slug} is made`);
    again();
  }
}

async function turn(tenant, verb, lead, again) {
  const at = `/v1/tenants/${encodeURIComponent(tenant.slug)}/${verb}`;
  const title = `${verb[0].toUpperCase()}${verb.slice(1)} this tenant?`;
  const done = await asked({ title, lead: [said(tenant.name || tenant.slug), el("br"), lead], submit: title.split(" ")[0], danger: verb === "suspend", word: verb === "suspend" ? tenant.slug : null, work: () => send("POST", at) });
  if (done) {
    toast(`Tenant ${done.slug} is ${done.state}`);
    again();
  }
}

async function remove(tenant, again) {
  const done = await asked({
    title: "Delete this tenant?", submit: "Delete it", danger: true, word: tenant.slug,
    lead: "It is closed at once: keys are refused, apps answer 503. For seven days it can be restored, then it is removed for good.",
    work: () => send("DELETE", `/v1/tenants/${encodeURIComponent(tenant.slug)}?confirm=${encodeURIComponent(tenant.slug)}`),
  });
  if (done) {
    toast(`Tenant ${done.slug} is deleted`);
    again();
  }
}

function actions(tenant, { go, again }) {
  const name = tenant.slug;
  const act = (label, work, kind = "small") => {
    const made = button(label, work, kind);
    made.setAttribute("aria-label", `${label} ${name}`);
    return made;
  };
  const open = act("Open", () => { choose(tenant); go(""); });
  const suspend = act("Suspend", () => turn(tenant, "suspend", "Its keys are refused and its apps answer 503, until it is resumed. Nothing is lost.", again));
  const resume = act("Resume", () => turn(tenant, "resume", "All is as it was before.", again));
  const restore = act("Restore", () => turn(tenant, "restore", "It is active again.", again));
  const doomed = act("Delete", () => remove(tenant, again), "small danger-text");
  // The operator’s own key is in this one.
  if (name === here.session.tenant.slug) return el("div", { class: "row-actions" }, open);
  const of = { active: [open, suspend, doomed], suspended: [resume, doomed], deleted: [restore] };
  return el("div", { class: "row-actions" }, of[tenant.state] ?? [open]);
}

const found = { by: "external_id", text: "" };

function search(again) {
  const by = el("select", { name: "by", "aria-label": "Search by" }, el("option", { value: "external_id", selected: found.by === "external_id" }, "External id"), el("option", { value: "tags", selected: found.by === "tags" }, "Tag"));
  const text = el("input", { type: "search", name: "text", "aria-label": "Search for", placeholder: "cust-1 or tier=gold", value: found.text });
  const submit = (event) => {
    event.preventDefault();
    Object.assign(found, { by: by.value, text: text.value.trim() });
    again();
  };
  return el("form", { class: "filters", role: "search", on: { submit } }, by, text, el("button", { class: "button", type: "submit" }, "Search"), found.text ? button("All", () => { found.text = ""; again(); }, "quiet") : null);
}

export default {
  id: "tenants",
  title: "Tenants",
  icon: "tenants",
  hidden: () => !is_operator(),
  page(cx) {
    const columns = [
      { label: "Tenant", kind: "first", cell: (it) => [el("strong", {}, said(it.name || it.slug, 80)), code(it.slug)] },
      { label: "State", cell: (it) => [badge(it.state, KINDS[it.state]), it.purge_after ? el("span", { class: "faint small" }, " removed ", when(it.purge_after)) : null] },
      { label: "External id", cell: (it) => (it.external_id ? code(it.external_id, 60) : nothing()) },
      { label: "Tags", cell: (it) => tags(it.tags) },
      { label: "Made", cell: (it) => when(it.created_at) },
      { label: "", kind: "end", cell: (it) => actions(it, cx) },
    ];
    const load = async (cursor) => {
      const asks = found.text ? { [found.by]: found.text } : {};
      const page = await get("/v1/tenants", { ...asks, cursor }, { elsewhere: true });
      return { rows: page.tenants, cursor: page.cursor };
    };
    const none = found.text ? empty("Nobody is found", "External ids and tags are searched for as a whole: cust-1, or tier=gold.") : empty("There is no tenant yet", "Make one for each customer.");
    return [heading("Tenants", "Customers of the platform; nothing of one is seen by another.", button("New tenant", () => make(cx.again), "primary", "plus")), search(cx.again), listed("Tenants", columns, load, none)];
  },
};
