// One environment: its releases and the way back to them, logs, usage, backups, and its end.

import { download, get, may, send, tool } from "./api.js";
import { asked, effects } from "./dialogs.js";
import { code, el, link, outward, said } from "./dom.js";
import { bytes, exactly, number, when } from "./format.js";
import { logs } from "./logs.js";
import { badge, button, card, doing, empty, facts, heading, lacking, later, table, toast, trouble } from "./parts.js";
import { usage_of } from "./usage.js";

const TABS = [["", "Releases"], ["logs", "Logs"], ["usage", "Usage"], ["backups", "Backups"]];

export async function environment(name, cx) {
  if (!may("app:read")) return [heading(code(name)), lacking("app:read", "see environments")];
  const app = await tool("app_describe", {}, name);
  const [, tab = ""] = cx.path;
  const at = `/environments/${encodeURIComponent(name)}`;
  const tabs = el("nav", { class: "tabs", "aria-label": "Of this environment" }, TABS.map(([id, label]) => {
    const to = link(id ? `${at}/${id}` : at, label);
    if (id === tab) to.setAttribute("aria-current", "page");
    return to;
  }));
  const title = heading(said(app.name || app.slug, 80), [code(app.slug), " ", outward(app.url)]);
  const way = el("p", { class: "way" }, link("/environments", "Environments"), " / ", code(app.slug));
  const pages = { "": () => releases(app, name, cx), logs: () => logs(name, cx), usage: () => usage_of(name), backups: () => backups(name, cx) };
  return [way, title, tabs, (pages[tab] ?? (() => empty("There is no such page", "")))()];
}

async function roll_back(release, name, again) {
  let plan;
  try {
    plan = await tool("app_rollback", { release, dry_run: true }, name);
  } catch (problem) {
    return trouble(problem);
  }
  const lines = [...plan.effects.map((one) => `${one.target}: ${one.message}`), ...plan.changes.map((one) => [one.action, one.target, one.detail].filter(Boolean).join(" "))];
  const done = await asked({
    title: `Return to release ${release}?`, submit: `Return to ${release}`,
    lead: [el("p", {}, "Schema, rules, functions, site and routes become those of that release. Rows that were written since stay."), effects(lines)],
    work: () => tool("app_rollback", { release }, name),
  });
  if (done) {
    toast(`Release ${done.release} is live`);
    again();
  }
  return null;
}

function releases(app, name, cx) {
  const counted = (what) => number(Array.isArray(app[what]) ? app[what].length : Object.keys(app[what] ?? {}).length);
  const parts = facts([
    ["Live release", app.release ? badge(`release ${app.release}`, "good") : "none yet"],
    ["Tables", counted("tables")], ["Functions", counted("functions")], ["Services", counted("services")],
    ["Buckets", counted("buckets")], ["Schedules", counted("schedules")], ["Secrets", counted("secrets")], ["Id", code(app.env)],
  ]);
  const problems = el("div");
  const all = app.releases ?? [];
  const { node, add } = table("Releases", [
    { label: "Release", kind: "first", cell: (it) => [el("strong", {}, `Release ${it.release}`), it.release === app.release ? badge("live", "good") : null] },
    { label: "Made", cell: (it) => [exactly(it.created_at), " ", el("span", { class: "faint" }, when(it.created_at))] },
    { label: "", kind: "end", cell: (it) => {
      if (it.release === app.release || !may("app:write")) return null;
      const back = doing("Roll back", async () => problems.replaceChildren(...[await roll_back(it.release, name, cx.again)].filter(Boolean)), (problem) => problems.replaceChildren(trouble(problem)), "small");
      back.setAttribute("aria-label", `Roll back to release ${it.release}`);
      return back;
    } },
  ]);
  all.forEach(add);
  const none = empty("Nothing was released yet", ["An agent does it with app_apply, a person with ", code("steading apply"), "."], link("/connect", "How to connect"));
  return [card("The app", parts), card("Releases", problems, all.length ? node : none), may("env:delete") ? end(name, app, cx) : null];
}

function end(name, app, { go }) {
  const problems = el("div");
  const begin = doing("Delete this environment", async () => {
    const at = `/v1/envs/${encodeURIComponent(app.env)}`;
    const plan = await send("DELETE", `${at}?dry_run=true`);
    const done = await asked({
      title: "Delete this environment?", submit: "Delete it for good", danger: true, word: app.slug,
      lead: [el("p", {}, "What is in it is lost:"), effects(plan.effects ?? [])],
      work: () => send("DELETE", `${at}?confirm=${encodeURIComponent(plan.confirm)}`),
    });
    if (done) {
      toast(`Environment ${app.slug} is deleted`);
      go("/environments");
    }
  }, (problem) => problems.replaceChildren(trouble(problem)), "danger-text");
  return card("The end of it", el("p", { class: "faint" }, "Database, files, site, releases, secrets and logs go with it. Backups stay for a while."), problems, begin);
}

function backups(name, cx) {
  const at = `/v1/envs/${encodeURIComponent(name)}/backups`;
  const problems = el("div");
  const failed = (problem) => problems.replaceChildren(trouble(problem));
  const make = doing("Back up now", async () => {
    const made = await send("POST", at);
    toast(`A backup of ${bytes(made.bytes)} is made`);
    cx.again();
  }, failed, "primary");
  const list = later(async () => {
    const { backups: all } = await get(at);
    if (!all.length) return empty("There is no backup yet", ["Make one now, or have them made by a schedule: ", code("\"backups\""), " in the manifest."]);
    const { node, add } = table("Backups", [
      { label: "Of", kind: "first", cell: (it) => [exactly(it.created_at), " ", el("span", { class: "faint" }, when(it.created_at))] },
      { label: "Size", cell: (it) => bytes(it.bytes) },
      { label: "SHA-256", cell: (it) => code(it.sha256, 16) },
      { label: "", kind: "end", cell: (it) => el("div", { class: "row-actions" },
        doing("Download", () => download(`${at}/${it.backup}`, `${it.slug}-${it.created_at.slice(0, 10)}.tar.zst`), failed, "small"),
        button("Delete", () => remove(`${at}/${it.backup}`, cx.again), "small danger-text")) },
    ]);
    all.forEach(add);
    return node;
  });
  return card("Backups", el("div", { class: "pair" }, el("p", { class: "faint" }, "A whole environment as one archive: rows, files, code. No values of secrets."), make), problems, list);
}

async function remove(at, again) {
  if (await asked({ title: "Delete this backup?", submit: "Delete it", danger: true, lead: "It cannot be had back.", work: () => send("DELETE", at) })) {
    toast("The backup is deleted");
    again();
  }
}
