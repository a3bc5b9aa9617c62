// What happened in an environment, newest first; followed on demand.

import { may, tool } from "./api.js";
import { el, said, seen } from "./dom.js";
import { clock } from "./format.js";
import { card, doing, empty, lacking, trouble, waiting } from "./parts.js";

const EVERY = 3000;
const MOST = 1000;

function entry(one) {
  const fields = Object.entries(one.fields ?? {}).slice(0, 24);
  const more = fields.length || one.request_id ? el("details", {}, el("summary", {}, "More"), el("dl", {},
    one.request_id ? [el("dt", {}, "request"), el("dd", {}, said(one.request_id))] : null,
    fields.map(([name, value]) => [el("dt", {}, said(name, 60)), el("dd", {}, said(typeof value === "string" ? value : JSON.stringify(value), 1000))]))) : null;
  return el("li", { class: `log log-${one.level}` }, el("time", { datetime: one.at, title: seen(one.at) }, clock(one.at)),
    el("span", { class: "log-level" }, seen(one.level)), el("span", { class: "log-source" }, seen(one.source)), el("div", { class: "log-text" }, said(one.message, 1000), more));
}

const same = (one) => `${one.at} ${one.source} ${one.message.slice(0, 200)}`;

export function logs(env, { signal }) {
  if (!may("logs:read")) return lacking("logs:read", "read logs");
  const place = el("div", { class: "later" });
  const list = el("ol", { class: "logs", "aria-label": "Log" });
  const known = new Set();
  let [cursor, timer, round] = [undefined, 0, 0];
  const values = { since: "1d", level: "info", text: "" };
  const ask = (at) => tool("logs_query", Object.fromEntries(Object.entries({ ...values, limit: 100, cursor: at }).filter(([, value]) => value)), env);
  const add = (entries, way) => {
    const fresh = entries.filter((one) => !known.has(same(one)));
    for (const one of fresh) known.add(same(one));
    list[way](...fresh.map(entry));
    while (way === "prepend" && list.childElementCount > MOST) list.lastElementChild.remove();
  };
  const older = doing("Show older", async () => {
    const page = await ask(cursor);
    add(page.entries, "append");
    ({ cursor } = page);
    older.hidden = !cursor;
  }, (problem) => place.append(trouble(problem)), "wide");
  const load = async () => {
    const mine = (round += 1);
    place.replaceChildren(waiting());
    try {
      const page = await ask();
      if (mine !== round) return;
      list.replaceChildren();
      known.clear();
      add(page.entries, "append");
      ({ cursor } = page);
      older.hidden = !cursor;
      const none = empty("Nothing was logged", "Nothing fits that was looked for. Ask for a longer time or a lower level, or visit the app once.");
      place.replaceChildren(...(page.entries.length ? [list, older] : [none]));
    } catch (problem) {
      if (mine === round) place.replaceChildren(trouble(problem, load));
    }
  };
  const news = async () => {
    if (document.hidden) return;
    const mine = round;
    try {
      const page = await ask();
      if (mine !== round) return;
      if (page.entries.length && !list.isConnected) place.replaceChildren(list, older);
      add(page.entries, "prepend");
    } catch (problem) {
      stop();
      place.prepend(trouble(problem));
    }
  };
  const follow = el("input", { type: "checkbox", on: { change: () => (follow.checked ? start() : stop()) } });
  const start = () => { news(); timer = setInterval(news, EVERY); };
  const stop = () => { clearInterval(timer); follow.checked = false; };
  signal.addEventListener("abort", stop);
  const chosen = (name, label, options) => el("select", { "aria-label": label, on: { change: (event) => { values[name] = event.target.value; load(); } } }, options.map(([value, text]) => el("option", { value, selected: value === values[name] }, text)));
  const text = el("input", { type: "search", "aria-label": "Text to look for", placeholder: "Text or request id" });
  const submit = (event) => {
    event.preventDefault();
    values.text = text.value.trim();
    if (values.text.startsWith("req_")) [values.request_id, values.text] = [values.text, ""];
    else delete values.request_id;
    load();
  };
  const form = el("form", { class: "filters", role: "search", on: { submit } },
    chosen("since", "Since", [["15m", "15 minutes"], ["1h", "1 hour"], ["1d", "1 day"], ["7d", "7 days"]]),
    chosen("level", "Level", [["debug", "Debug and up"], ["info", "Info and up"], ["warn", "Warnings and errors"], ["error", "Errors"]]),
    text, el("button", { class: "button", type: "submit" }, "Refresh"), el("label", { class: "follow" }, follow, "Follow"));
  load();
  return card("Log", form, place);
}
