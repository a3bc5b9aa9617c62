// What pages are made of: headings, tables that become cards, lists with pages, notes, bars.

import { code, el, icon, link, said, seen, svg } from "./dom.js";
import { number, short } from "./format.js";

export function heading(title, lead, ...actions) {
  const text = el("div", {}, el("h1", { tabindex: "-1" }, title), lead ? el("p", { class: "lead" }, lead) : null);
  return el("header", { class: "heading" }, text, actions.length ? el("div", { class: "actions" }, actions) : null);
}

export function button(label, on_click, kind = "", picture = null) {
  return el("button", { type: "button", class: `button ${kind}`, on: { click: on_click } }, picture ? icon(picture) : null, label);
}

/** A button that waits for what it does, and tells `failed` of what goes wrong. */
export function doing(label, work, failed, kind = "") {
  const made = button(label, async () => {
    made.disabled = true;
    made.setAttribute("aria-busy", "true");
    try {
      await work();
    } catch (problem) {
      failed(problem);
    } finally {
      made.disabled = false;
      made.removeAttribute("aria-busy");
    }
  }, kind);
  return made;
}

export function badge(text, kind = "") {
  return el("span", { class: `badge ${kind}` }, seen(text));
}

export function card(title, ...children) {
  return el("section", { class: "card" }, title ? el("h2", {}, title) : null, children);
}

export function empty(title, text, ...actions) {
  return el("div", { class: "empty" }, el("p", { class: "empty-title" }, title), el("p", {}, text), actions);
}

export function trouble(problem, again = null) {
  const hint = problem.hint ? el("p", {}, said(problem.hint, 400)) : null;
  const request = problem.request ? el("p", { class: "faint small" }, "Request ", code(problem.request)) : null;
  const message = el("p", { class: "trouble-title" }, said(problem.message || "something went wrong", 400));
  return el("div", { class: "trouble", role: "alert" }, message, hint, request, again ? button("Try again", again, "small") : null);
}

/** Says honestly why there is nothing to see. */
export function lacking(scope, what) {
  return empty(`Your key may not ${what}`, ["That takes the scope ", code(scope), ". Sign in with a key that has it, or ask who made yours."]);
}

export const nothing = () => el("span", { class: "faint" }, "–");

/** An id, of which the end tells it apart. */
export function brief(id) {
  const [kind, rest = ""] = String(id).split("_");
  return rest.length < 12 ? code(id) : el("code", { title: seen(id), class: "faint" }, seen(`${kind}_…${rest.slice(-8)}`));
}

/** An environment by its id: its slug where `names` has it, and the way to it. */
export function place(names, id) {
  if (!id) return nothing();
  return link(`/environments/${encodeURIComponent(names.get(id) ?? id)}`, names.has(id) ? said(names.get(id), 60) : brief(id));
}

export const waiting = () => el("div", { class: "waiting", role: "status" }, el("span", { class: "visually-hidden" }, "Loading"), el("i"), el("i"), el("i"));

/** A place that shows what `work` gives: a sign of waiting first, and what went wrong where it fails. */
export function later(work) {
  const place = el("div", { class: "later" });
  const load = async () => {
    place.replaceChildren(waiting());
    try {
      place.replaceChildren(...[await work(load)].flat());
    } catch (problem) {
      place.replaceChildren(trouble(problem, load));
    }
  };
  load();
  return place;
}

/** Rows below columns of `{ label, cell, kind }`; on a phone each row is a card. */
export function table(about, columns) {
  const body = el("tbody");
  const heads = columns.map(({ label, kind }) => el("th", { scope: "col", class: kind }, label || el("span", { class: "visually-hidden" }, "Actions")));
  const node = el("div", { class: "table" }, el("table", {}, el("caption", { class: "visually-hidden" }, about), el("thead", {}, el("tr", {}, heads)), body));
  const add = (row) => body.append(el("tr", {}, columns.map(({ label, cell, kind }) => el("td", { "data-label": label, class: kind }, el("div", {}, cell(row))))));
  return { node, add, clear: () => body.replaceChildren() };
}

/** A list with pages: `load(cursor)` gives `{ rows, cursor }`. */
export function listed(about, columns, load, none) {
  return later(async (again) => {
    const first = await load(undefined, again);
    if (first.rows.length === 0) return none;
    const { node, add } = table(about, columns);
    const problems = el("div");
    let { cursor } = first;
    first.rows.forEach(add);
    const more = doing("Show more", async () => {
      const next = await load(cursor);
      problems.replaceChildren();
      next.rows.forEach(add);
      ({ cursor } = next);
      more.hidden = !cursor;
    }, (problem) => problems.replaceChildren(trouble(problem)), "wide");
    more.hidden = !cursor;
    return [node, problems, more];
  });
}

export function facts(pairs) {
  const rows = pairs.filter(([, value]) => value !== null && value !== undefined);
  return el("dl", { class: "facts" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

export function tags(all) {
  const pairs = Object.entries(all ?? {});
  if (!pairs.length) return nothing();
  return el("span", { class: "tags" }, pairs.slice(0, 8).map(([name, value]) => el("span", { class: "tag" }, said(`${name}=${value}`, 60))), pairs.length > 8 ? el("span", { class: "faint" }, `and ${pairs.length - 8} more`) : null);
}

/** Columns over time, of `{ label, value, bad }`. */
export function columns(about, points) {
  const most = Math.max(1, ...points.map((point) => point.value));
  const [width, height, gap] = [100 / points.length, 100, 100 / points.length / 3];
  const bars = points.map(({ label, value, bad }, n) => {
    const tall = value === 0 ? 0.8 : Math.max(2, (value / most) * height);
    const wrong = value ? tall * ((bad ?? 0) / value) : 0;
    const bar = { x: n * width + gap / 2, width: width - gap, rx: 0.6 };
    return svg("g", {}, svg("title", {}, `${label}: ${number(value)}${bad ? `, ${number(bad)} failed` : ""}`),
      svg("rect", { x: n * width, width, y: 0, height, class: "bar-ground" }),
      svg("rect", { ...bar, y: height - tall, height: tall, class: value ? "bar-full" : "bar-none" }),
      wrong ? svg("rect", { ...bar, y: height - wrong, height: wrong, class: "bar-bad" }) : null);
  });
  const text = points.map(({ label, value }) => `${label} ${number(value)}`).join(", ");
  const picture = svg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": `${about}: ${text}` }, bars);
  const labels = el("div", { class: "chart-labels", "aria-hidden": "true" }, points.map(({ label, value }) => el("span", {}, el("b", {}, short(value)), label)));
  return el("figure", { class: "chart" }, picture, labels);
}

/** How much of a whole. */
export function share(part, whole, about, plain = null) {
  const of = whole > 0 ? Math.min(100, (part / whole) * 100) : part > 0 ? 100 : 0;
  const kind = plain ?? (of >= 90 ? "share-bad" : of >= 75 ? "share-near" : "share-good");
  return svg("svg", { class: `share ${kind}`, viewBox: "0 0 100 4", preserveAspectRatio: "none", role: "img", "aria-label": `${about}: ${Math.round(of)} %` },
    svg("rect", { width: 100, height: 4, class: "share-ground" }), svg("rect", { width: of, height: 4, class: "share-part" }));
}

/** A line to be copied. */
export function copied(text, about = "Copy") {
  const told = el("span", { class: "visually-hidden", role: "status" });
  const made = button(el("span", {}, "Copy"), async () => {
    const label = made.querySelector("span");
    try {
      await navigator.clipboard.writeText(text);
      label.textContent = told.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(shown);
      label.textContent = told.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { label.textContent = "Copy"; told.textContent = ""; }, 2500);
  }, "small", "copy");
  made.setAttribute("aria-label", about);
  const shown = el("code", { tabindex: "0" }, text);
  return el("div", { class: "copied" }, el("pre", {}, shown), made, told);
}

let fading = 0;
/** Says briefly what was done. */
export function toast(text) {
  const place = document.querySelector("#toast");
  place.replaceChildren(el("p", {}, icon("check"), said(text)));
  clearTimeout(fading);
  fading = setTimeout(() => place.replaceChildren(), 5000);
}
