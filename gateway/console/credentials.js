// Minted credentials: a part of what their maker may, in one environment, for a day at most.

import { get, here, send } from "./api.js";
import { asked, boxes, field, once } from "./dialogs.js";
import { el, said } from "./dom.js";
import { when } from "./format.js";
import { badge, brief, button, card, empty, listed, place, toast } from "./parts.js";
import { choices, listed_texts, scopes } from "./keys.js";

const USUAL = ["app:read", "db:read", "logs:read", "storage:read"];

async function mint(again) {
  const envs = await choices();
  const made = await asked({
    title: "New short-lived credential", submit: "Mint it",
    lead: "For an agent, a job or a script: what it does, as long as it does it.",
    fields: [
      envs.length ? field({ name: "env", label: "Environment", required: true, options: envs }) : here.session.env ? null : field({ name: "env", label: "Environment", required: true, hint: "Its slug or id." }),
      field({ name: "expires_in", label: "Ends", value: "3600", options: [{ value: "900", label: "In 15 minutes" }, { value: "3600", label: "In an hour" }, { value: "28800", label: "In 8 hours" }, { value: "86400", label: "In a day" }] }),
      field({ name: "source", label: "Networks", placeholder: "10.0.0.0/8", hint: "Where it is good; as your key, where it is left out." }),
      boxes({ name: "scopes", label: "It may", choices: scopes((scope) => USUAL.includes(scope)).filter(({ value }) => !/^(env|key):/.test(value)) }),
    ],
    work: (form) => {
      const wanted = { scopes: form.getAll("scopes"), expires_in: Number(form.get("expires_in")) };
      const source = listed_texts(form.get("source"));
      if (source.length) wanted.source = source;
      if (form.get("env")) wanted.env = form.get("env").trim();
      return send("POST", "/v1/credentials", wanted);
    },
  });
  if (!made) return;
  await once({ title: "The new credential", about: ["It ends ", when(made.expires_at), "."], secret: made.token });
  again();
}

async function revoke(it, again) {
  if (await asked({ title: "End this credential?", submit: "End it", danger: true, lead: "It ends at once, with all that stands on it.", work: () => send("DELETE", `/v1/credentials/${encodeURIComponent(it.id)}`) })) {
    toast("The credential is ended");
    again();
  }
}

export function credentials(cx, names) {
  const columns = [
    { label: "Credential", kind: "first", cell: (it) => brief(it.id) },
    { label: "Environment", cell: (it) => place(names, it.env) },
    { label: "May", cell: (it) => (it.tools ? [badge(`${it.tools.length} tools`), said(` ${it.tools.join(" ")}`, 120)] : el("details", {}, el("summary", {}, `${it.scopes.length} scopes`), el("p", { class: "small" }, said(it.scopes.join(" "), 600)))) },
    { label: "Made", cell: (it) => when(it.created_at) },
    { label: "Ends", cell: (it) => when(it.expires_at) },
    { label: "", kind: "end", cell: (it) => button("End", () => revoke(it, cx.again), "small danger-text") },
  ];
  const load = async (cursor) => {
    const page = await get("/v1/credentials", { cursor });
    return { rows: page.credentials, cursor: page.cursor };
  };
  return card("Short-lived credentials", el("div", { class: "pair" }, el("p", { class: "faint" }, "Minted ones, and programs that a user has signed in."), button("Mint one", () => mint(cx.again), "", "plus")), listed("Short-lived credentials", columns, load, empty("None lives", "Mint one for an agent or a job, in place of a key.")));
}
