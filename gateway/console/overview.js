// What there is, whether it is well, and how much it was used lately.

import { get, here, is_operator, may, tenant } from "./api.js";
import { code, el, link, outward, said } from "./dom.js";
import { micro, number, short, when } from "./format.js";
import { card, columns, empty, heading, later, lacking, share } from "./parts.js";

const DAYS = 7;

/** Calls and failures of each of the last days: what was counted since then, less what was counted since a day later. */
export async function days(env) {
  const sums = [];
  // One after the other, the longest time first, and without what is counted of these questions themselves.
  for (let n = DAYS; n > 0; n -= 1) {
    const { calls } = await get("/v1/usage", { since: `${n}d`, env });
    const others = calls.filter(({ tool }) => tool !== "usage.show");
    sums.push({ value: sum(others, "calls"), bad: sum(others, "errors") });
  }
  return sums.map((one, n) => {
    const next = sums[n + 1] ?? { value: 0, bad: 0 };
    const day = new Date(Date.now() - (DAYS - 1 - n) * 864e5);
    const label = day.toLocaleDateString("en", { weekday: "short" });
    return { label, value: Math.max(0, one.value - next.value), bad: Math.max(0, one.bad - next.bad) };
  });
}

export const sum = (rows, name) => rows.reduce((all, row) => all + row[name], 0);

export function figure(name, value, note = null) {
  return el("div", { class: "figure" }, el("p", { class: "figure-name" }, name), el("p", { class: "figure-value" }, value), note ? el("p", { class: "faint small" }, note) : null);
}

async function health() {
  const response = await fetch("/readyz", { cache: "no-store" });
  const told = await response.json().catch(() => ({}));
  if (response.ok) return figure("Platform", el("span", { class: "well" }, "Ready"), "everything it stands on answers");
  const parts = (told.not_ready ?? []).map((part) => part.part).join(", ");
  return figure("Platform", el("span", { class: "unwell" }, "Not ready"), said(parts || told.message || "it does not answer"));
}

async function figures() {
  const [envs, keys, used] = await Promise.all([
    get("/v1/envs"), may("key:admin") ? get("/v1/keys") : null, get("/v1/usage", { since: "1d" }),
  ]);
  const alive = keys?.keys.filter((key) => !key.revoked);
  const many = (list, cursor) => `${number(list.length)}${cursor ? "+" : ""}`;
  const failed = sum(used.calls, "errors");
  return el("div", { class: "figures" }, later(health),
    figure("Environments", many(envs.environments, envs.cursor)),
    alive ? figure("Keys", many(alive, keys.cursor), "that are not revoked") : null,
    figure("Calls", short(sum(used.calls, "calls")), failed ? `in a day, ${number(failed)} failed` : "in a day, none failed"),
    figure("Model tokens", short(used.model.tokens), "in a day"));
}

async function budgets() {
  const { budgets: all } = await get("/v1/budgets");
  if (!all.length) return empty("No budget is set", "Then each environment has the tokens a day that the platform grants.", link("/budgets", "Set a budget"));
  return el("ul", { class: "plain" }, all.slice(0, 5).map((one) => {
    const said_of = one.unit === "micro" ? micro : short;
    return el("li", {}, el("div", { class: "pair" }, el("span", {}, one.unit === "micro" ? "Money" : "Tokens", " a ", one.period), el("span", { class: "faint" }, `${said_of(one.spent)} of ${said_of(one.most)}`)), share(one.spent, one.most, "Spent"));
  }));
}

async function newest() {
  const { environments } = await get("/v1/envs");
  if (!environments.length) return empty("There is no environment yet", "An environment is an app’s place: its database, files, functions and address.", link("/environments", "Make the first one"));
  return el("ul", { class: "plain" }, environments.slice(-6).reverse().map((env) => el("li", { class: "pair" }, el("span", {}, link(`/environments/${encodeURIComponent(env.slug)}`, said(env.name || env.slug, 60)), el("br"), el("span", { class: "small" }, outward(env.url))), el("span", { class: "faint small" }, when(env.created_at)))));
}

export default {
  id: "",
  title: "Overview",
  icon: "home",
  page() {
    const lead = is_operator() ? ["You are the operator of ", code(here.session.url), "."] : ["What your key sees of ", code(here.session.url), "."];
    const title = heading(said(tenant().name || tenant().slug, 80), lead);
    if (here.session.env) {
      const note = el("p", {}, "Your key is bound to one environment. ", link(`/environments/${here.session.env}`, "Open it"), " to see its releases, logs and usage.");
      return [title, el("div", { class: "figures" }, later(health)), card("One environment", note)];
    }
    if (!may("env:read")) return [title, lacking("env:read", "see environments and usage")];
    const chart = later(async () => {
      const all = await days();
      return all.some((day) => day.value) ? columns("Calls by day", all) : empty("No calls yet", "Connect an agent, and it begins.", link("/connect", "How to connect"));
    });
    return [title, later(figures), card("Calls in the last week", chart),
      el("div", { class: "two" }, card("Newest environments", later(newest)), card("Budgets", later(budgets)))];
  },
};
