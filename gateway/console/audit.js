// Who has changed what: the tenant's signed log, latest first.

import { download, env_names, get, here, may, tenant } from "./api.js";
import { code, el, said } from "./dom.js";
import { exactly, when } from "./format.js";
import { badge, brief, card, doing, empty, heading, lacking, listed, nothing, place, trouble } from "./parts.js";

const wanted = { env: "", act: "" };

function about(one) {
  const all = Object.entries(one.about ?? {});
  if (!all.length) return nothing();
  const first = all.slice(0, 3).map(([name, value]) => el("span", { class: "tag" }, said(`${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`, 60)));
  const rest = el("dl", {}, all.map(([name, value]) => [el("dt", {}, said(name, 60)), el("dd", {}, said(typeof value === "string" ? value : JSON.stringify(value), 600))]), el("dt", {}, "hash"), el("dd", {}, code(one.hash)), el("dt", {}, "call"), el("dd", {}, code(one.call ?? "–")));
  return [el("span", { class: "tags" }, first), el("details", {}, el("summary", {}, "All"), rest)];
}

export default {
  id: "audit",
  title: "Audit",
  icon: "audit",
  async page({ again }) {
    const lead = "Every change, with who made it. Entries are a signed chain.";
    if (!may("key:admin") || here.session.env) return [heading("Audit", lead), lacking("key:admin", "read the audit log of the tenant")];
    const names = await env_names();
    const problems = el("div");
    const exported = doing("Export all", () => download("/v1/audit/export", `audit-${tenant().slug}.ndjson`), (problem) => problems.replaceChildren(trouble(problem)));
    const env = el("input", { type: "search", placeholder: "Environment", "aria-label": "Environment, by slug or id", value: wanted.env });
    const act = el("input", { type: "search", placeholder: "Act, credential or address", "aria-label": "Act, credential or address", value: wanted.act });
    const submit = (event) => {
      event.preventDefault();
      Object.assign(wanted, { env: env.value.trim(), act: act.value.trim().toLowerCase() });
      again();
    };
    const filters = el("form", { class: "filters", role: "search", on: { submit } }, env, act, el("button", { class: "button", type: "submit" }, "Filter"));
    const fits = (one) => !wanted.act || [one.act, one.credential, one.from, one.outcome, one.who].some((text) => String(text ?? "").toLowerCase().includes(wanted.act));
    const load = async (cursor) => {
      // Whoever filters wants to see something: some pages are looked through for it.
      let [rows, at] = [[], cursor];
      for (let n = 0; n < 5; n += 1) {
        const page = await get("/v1/audit", { env: wanted.env, cursor: at });
        rows = rows.concat(page.entries.filter(fits));
        at = page.cursor;
        if (!at || rows.length >= 20) break;
      }
      return { rows, cursor: at };
    };
    const columns = [
      { label: "When", cell: (it) => [exactly(it.at), el("br"), el("span", { class: "faint small" }, `no. ${it.seq} · `, when(it.at))] },
      { label: "Act", kind: "first", cell: (it) => [code(it.act), it.effect === "destroy" ? badge("destroys", "near") : null, it.outcome === "ok" ? null : badge(it.outcome, "bad")] },
      { label: "Who", cell: (it) => [said(it.who), " ", el("span", { class: "faint small" }, it.credential ? brief(it.credential) : null, it.credential === here.session.key.id ? " (you)" : "", it.from ? [" from ", said(it.from)] : "", it.door ? [" by ", said(it.door)] : "")] },
      { label: "Environment", cell: (it) => place(names, it.env) },
      { label: "About", cell: about },
    ];
    const none = wanted.env || wanted.act ? empty("Nothing fits", "Look for less, or export the whole log.") : empty("Nothing was changed yet", "What is changed through a tool or a route is here from then on.");
    return [heading("Audit", lead, exported), problems, filters, listed("Audit log", columns, load, none)];
  },
};
