// What may be spent on models, and what they cost.

import { env_names, get, is_operator, may, send } from "./api.js";
import { asked, field } from "./dialogs.js";
import { code, el, said } from "./dom.js";
import { exactly, micro, number, when } from "./format.js";
import { badge, button, card, empty, heading, lacking, listed, place, share, toast } from "./parts.js";
import { choices } from "./keys.js";

const shown = (unit, value) => (unit === "micro" ? micro(value) : number(value));
/** Money is typed in whole units of the currency, and counted in millionths. */
const counted = (unit, typed) => (unit === "micro" ? Math.round(Number(typed) * 1e6) : Number(typed));

async function set(again) {
  const envs = await choices();
  const done = await asked({
    title: "Set a budget", submit: "Set it", lead: "All budgets that bound a call have to have room for it.",
    fields: [
      envs.length ? field({ name: "env", label: "Of", options: [{ value: "", label: "The whole tenant" }, ...envs] }) : null,
      field({ name: "unit", label: "Counts", options: [{ value: "tokens", label: "Tokens" }, { value: "micro", label: "Money" }] }),
      field({ name: "period", label: "In a calendar", options: [{ value: "day", label: "Day" }, { value: "month", label: "Month" }] }),
      field({ name: "most", label: "At most", type: "number", min: 0, step: "any", required: true, hint: "Tokens, or an amount of the operator’s currency." }),
    ],
    work: (form) => {
      const wanted = { unit: form.get("unit"), period: form.get("period"), most: counted(form.get("unit"), form.get("most")) };
      if (form.get("env")) wanted.env = form.get("env");
      return send("PUT", "/v1/budgets", wanted);
    },
  });
  if (done) {
    toast("The budget is set");
    again();
  }
}

async function change(it, again) {
  const value = it.unit === "micro" ? it.most / 1e6 : it.most;
  const done = await asked({ title: "Change this budget", submit: "Change it", fields: [field({ name: "most", label: "At most", type: "number", min: 0, step: "any", required: true, value: String(value), autofocus: true })], work: (form) => send("PUT", `/v1/budgets/${it.id}`, { most: counted(it.unit, form.get("most")) }) });
  if (done) {
    toast("The budget is changed");
    again();
  }
}

async function remove(it, again) {
  if (await asked({ title: "Remove this budget?", submit: "Remove it", danger: true, lead: "What it bounded is bounded by the others alone.", work: () => send("DELETE", `/v1/budgets/${it.id}`) })) {
    toast("The budget is removed");
    again();
  }
}

async function price(again) {
  const field_of = (name, label, required) => field({ name, label, type: "number", min: 0, step: "any", required });
  const done = await asked({
    title: "Set a price", submit: "Set it", lead: "Of a million tokens, in the operator’s currency, from now on.",
    fields: [field({ name: "model", label: "Model", required: true, autofocus: true }), field_of("input", "Input", true), field_of("cached_input", "Cached input"), field_of("output", "Output", true)],
    work: (form) => {
      const wanted = { model: form.get("model").trim() };
      for (const name of ["input", "cached_input", "output"]) if (form.get(name) !== "") wanted[name] = counted("micro", form.get(name));
      return send("PUT", "/v1/prices", wanted, { elsewhere: true });
    },
  });
  if (done) {
    toast("The price is set");
    again();
  }
}

export default {
  id: "budgets",
  title: "Budgets & prices",
  icon: "budgets",
  async page({ again }) {
    const names = await env_names();
    const title = (...actions) => heading("Budgets & prices", "What functions may spend on models, and what those cost.", ...actions);
    if (!may("env:read")) return [title(), lacking("env:read", "see budgets of the tenant")];
    const actions = (it) => (it.id && may("key:admin") ? el("div", { class: "row-actions" }, button("Change", () => change(it, again), "small"), button("Remove", () => remove(it, again), "small danger-text")) : null);
    const budgets = [
      { label: "Of", kind: "first", cell: (it) => (it.env ? place(names, it.env) : "The whole tenant") },
      { label: "Counts", cell: (it) => `${it.unit === "micro" ? "money" : "tokens"} a ${it.period}` },
      { label: "Spent", kind: "grow", cell: (it) => [el("span", {}, `${shown(it.unit, it.spent)} of ${shown(it.unit, it.most)}`), share(it.spent, it.most, "Spent")] },
      { label: "Set by", cell: (it) => badge(it.set_by) },
      { label: "Anew", cell: (it) => when(it.resets_at) },
      { label: "", kind: "end", cell: actions },
    ];
    const prices = [
      { label: "Model", kind: "first", cell: (it) => code(it.model) },
      { label: "Since", cell: (it) => exactly(it.since) },
      { label: "Input", kind: "amount", cell: (it) => micro(it.input) },
      { label: "Cached input", kind: "amount", cell: (it) => micro(it.cached_input) },
      { label: "Output", kind: "amount", cell: (it) => micro(it.output) },
    ];
    const load = (path, name, options) => async (cursor) => {
      const page = await get(path, { cursor }, options);
      return { rows: page[name], cursor: page.cursor };
    };
    const none = empty("No budget is set", "Then each environment has the tokens a day that the platform grants.");
    const free = empty("No model has a price", is_operator() ? "Set one, so that budgets can count money." : "The operator sets prices.");
    return [
      title(...(may("key:admin") ? [button("Set a budget", () => set(again), "primary", "plus")] : [])),
      card("Budgets", listed("Budgets", budgets, load("/v1/budgets", "budgets"), none)),
      card("Prices", el("div", { class: "pair" }, el("p", { class: "faint" }, "Of a million tokens, in the operator’s currency."), is_operator() ? button("Set a price", () => price(again), "", "plus") : null), listed("Prices", prices, load("/v1/prices", "prices", { elsewhere: true }), free)),
    ];
  },
};
