// What was called, how often it failed and how long it took; what models have used.

import { get, here, may } from "./api.js";
import { code, el, link } from "./dom.js";
import { micro, number, short } from "./format.js";
import { days, figure, sum } from "./overview.js";
import { card, columns, empty, heading, lacking, later, share, table } from "./parts.js";

const TIMES = [["1h", "An hour"], ["1d", "A day"], ["7d", "7 days"], ["30d", "30 days"]];
let since = "7d";

function calls(all) {
  if (!all.length) return empty("Nothing was called", "Connect an agent, or call a tool from the command line.", link("/connect", "How to connect"));
  const most = Math.max(...all.map((one) => one.calls));
  const { node, add } = table("Calls", [
    { label: "Tool or route", kind: "first", cell: (it) => code(it.tool) },
    { label: "Calls", kind: "grow", cell: (it) => [el("span", {}, number(it.calls)), share(it.calls, most, "Of the most called", "share-plain")] },
    { label: "Failed", kind: "amount", cell: (it) => (it.errors ? el("span", { class: "unwell" }, number(it.errors)) : el("span", { class: "faint" }, "0")) },
    { label: "On average", kind: "amount", cell: (it) => `${number(Math.round(it.ms / Math.max(1, it.calls)))} ms` },
  ]);
  all.toSorted((one, other) => other.calls - one.calls).forEach(add);
  return node;
}

/** Usage of an environment; of the whole tenant, where none is named. */
export function usage_of(env) {
  if (!may("env:read")) return lacking("env:read", "see usage");
  const place = el("div", { class: "later" });
  const load = () => place.replaceChildren(later(async () => {
    const used = await get("/v1/usage", { since, env });
    const failed = sum(used.calls, "errors");
    return [
      el("div", { class: "figures" },
        figure("Calls", short(sum(used.calls, "calls")), failed ? `${number(failed)} failed` : "none failed"),
        figure("Model calls", short(used.model.calls)),
        figure("Model tokens", short(used.model.tokens), `${short(used.model.prompt_tokens)} in, ${short(used.model.completion_tokens)} out`),
        figure("Money", micro(used.model.micro), "in the operator’s currency")),
      card("Tools and routes", calls(used.calls)),
    ];
  }));
  const chosen = el("div", { class: "choice", role: "group", "aria-label": "Time" }, TIMES.map(([value, label]) => {
    const made = el("button", { type: "button", "aria-pressed": String(value === since), on: { click: () => {
      since = value;
      for (const other of chosen.children) other.setAttribute("aria-pressed", String(other === made));
      load();
    } } }, label);
    return made;
  }));
  load();
  const chart = later(async () => columns("Calls by day", await days(env)));
  return [card("Calls by day", chart), chosen, place];
}

export default {
  id: "usage",
  title: "Usage",
  icon: "usage",
  page() {
    const title = heading("Usage", "What this tenant has called, and what models have used for it.");
    if (here.session.env) return [title, empty("Your key is bound to one environment", "Its usage:", link(`/environments/${here.session.env}/usage`, "Open it"))];
    return [title, usage_of()];
  },
};
