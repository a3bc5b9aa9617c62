// Keys of the tenant, and the short-lived credentials that stand on them.

import { env_names, get, here, is_operator, may, send } from "./api.js";
import { credentials } from "./credentials.js";
import { asked, boxes, field, once } from "./dialogs.js";
import { code, el, said } from "./dom.js";
import { when } from "./format.js";
import { badge, brief, button, card, empty, heading, lacking, listed, place, toast } from "./parts.js";
import { filled } from "./tenants.js";

/** What can be given: what whoever is signed in has. */
export function scopes(checked = () => false) {
  const all = here.session.key.scopes.filter((scope) => scope !== "tenant:admin");
  return all.map((value) => ({ value, checked: checked(value) }));
}

/** Environments to choose from; none where they cannot be listed. */
export async function choices() {
  if (here.session.env || !may("env:read")) return [];
  const { environments } = await get("/v1/envs");
  return environments.map((env) => ({ value: env.slug, label: env.slug }));
}

const LIVES = [{ value: "", label: "Until it is revoked" }, { value: "86400", label: "A day" }, { value: "2592000", label: "30 days" }, { value: "7776000", label: "90 days" }, { value: "31536000", label: "A year" }];

export const listed_texts = (text) => (text ?? "").split(/[\s,]+/).filter(Boolean);

async function make(again) {
  const envs = await choices();
  const made = await asked({
    title: "New key", submit: "Make it",
    lead: "Name what it is for. Agents and jobs are better off with a short-lived credential.",
    fields: [
      field({ name: "name", label: "Name", required: true, autofocus: true, placeholder: "Deploys from CI" }),
      envs.length ? field({ name: "env", label: "Good in", options: [{ value: "", label: "The whole tenant" }, ...envs] }) : null,
      field({ name: "expires_in", label: "Ends", options: LIVES }),
      field({ name: "cidrs", label: "Networks", placeholder: "203.0.113.0/24", hint: "Where it is good; everywhere, where it is left out." }),
      el("details", { class: "field" }, el("summary", {}, "Scopes: all that you may, save sandboxes"), boxes({ name: "scopes", label: "Only these", hint: "With none ticked it has what you have, save sandbox:use.", choices: scopes() })),
    ],
    work: (form) => {
      const wanted = filled(form, ["name", "env"]);
      const [cidrs, only] = [listed_texts(form.get("cidrs")), form.getAll("scopes")];
      if (form.get("expires_in")) wanted.expires_in = Number(form.get("expires_in"));
      if (cidrs.length) wanted.cidrs = cidrs;
      if (only.length) wanted.scopes = only;
      return send("POST", "/v1/keys", wanted);
    },
  });
  if (!made) return;
  await once({ title: "The new key", about: ["This is the key ", el("strong", {}, said(made.name)), "."], secret: made.key });
  again();
}

async function rotate(key, again) {
  const made = await asked({
    title: "Replace this key?", submit: "Make the new one",
    lead: [el("p", {}, said(key.name)), "A key with the same name, environment and scopes is made. The old one ends after a while, with all that was minted by it."],
    fields: [field({ name: "overlap_s", label: "The old one ends", value: "3600", options: [{ value: "0", label: "At once" }, { value: "3600", label: "In an hour" }, { value: "86400", label: "In a day" }, { value: "604800", label: "In a week" }] })],
    work: (form) => send("POST", `/v1/keys/${encodeURIComponent(key.id)}/rotate`, { overlap_s: Number(form.get("overlap_s")) }),
  });
  if (!made) return;
  await once({ title: "The new key", about: ["It takes the place of ", el("strong", {}, said(key.name)), "."], secret: made.key });
  again();
}

async function revoke(key, again) {
  const own = key.id === here.session.key.id ? el("p", { class: "note" }, "You have signed in with this one: you are signed out then.") : null;
  const done = await asked({ title: "Revoke this key?", submit: "Revoke it", danger: true, lead: [el("p", {}, said(key.name)), el("p", {}, "It ends at once, with all that was minted by it. It cannot be undone."), own], work: () => send("DELETE", `/v1/keys/${encodeURIComponent(key.id)}`) });
  if (done) {
    toast("The key is revoked");
    again();
  }
}

function state(key) {
  if (key.revoked) return badge("revoked", "bad");
  if (key.expires_at && new Date(key.expires_at) <= new Date()) return badge("ended", "bad");
  if (key.rotated_to) return badge("replaced", "near");
  return badge("good", "good");
}

export default {
  id: "keys",
  title: "Keys & credentials",
  icon: "keys",
  async page(cx) {
    const names = await env_names();
    const title = (...actions) => heading("Keys & credentials", "Who may call the platform, and what they may do.", ...actions);
    if (!may("key:admin")) return [title(), lacking("key:admin", "see keys"), credentials(cx, names)];
    const actions = (key) => {
      if (key.revoked) return null;
      const act = (label, work, kind) => {
        const made = button(label, () => work(key, cx.again), kind);
        made.setAttribute("aria-label", `${label} ${key.name.slice(0, 60)}`);
        return made;
      };
      return el("div", { class: "row-actions" }, key.rotated_to ? null : act("Rotate", rotate, "small"), act("Revoke", revoke, "small danger-text"));
    };
    const columns = [
      { label: "Key", kind: "first", cell: (it) => [el("strong", {}, said(it.name, 80)), it.id === here.session.key.id ? badge("yours") : null, brief(it.id)] },
      { label: "State", cell: state },
      { label: "Good in", cell: (it) => [it.env ? place(names, it.env) : "the tenant", it.cidrs ? el("span", { class: "faint small" }, " from ", said(it.cidrs.join(", "), 60)) : null] },
      { label: "Scopes", cell: (it) => el("details", {}, el("summary", {}, `${it.scopes.length} scopes`), el("p", { class: "small" }, said(it.scopes.join(" "), 600))) },
      { label: "Used", cell: (it) => when(it.last_used_at) },
      { label: "Ends", cell: (it) => (it.expires_at ? when(it.expires_at) : el("span", { class: "faint" }, "never")) },
      { label: "", kind: "end", cell: actions },
    ];
    const load = async (cursor) => {
      const page = await get("/v1/keys", { cursor });
      return { rows: page.keys, cursor: page.cursor };
    };
    const note = is_operator() ? ["The operator’s own key is replaced on the command line: ", code("steading key rotate operator"), "."] : null;
    return [title(button("New key", () => make(cx.again), "primary", "plus")), card("Keys", note ? el("p", { class: "faint small" }, note) : null, listed("Keys", columns, load, empty("There is no key yet", "Make one for whoever is to work in this tenant."))), credentials(cx, names)];
  },
};
