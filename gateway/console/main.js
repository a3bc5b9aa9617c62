// The console's frame: who is signed in, which page is shown, and the way between pages.

import { arrive, choose, forget, here, is_operator, resume, sign_out, tenant } from "./api.js";
import { el, icon, link, said } from "./dom.js";
import { join_page, taken } from "./join.js";
import { button, empty, trouble } from "./parts.js";
import { sections } from "./sections.js";
import { sign_in_page } from "./sign-in.js";

const app = document.querySelector("#app");
let leaving = new AbortController();

/** The parts of the address below `/console`. */
const places = () => location.pathname.split("/").slice(2).filter(Boolean).map((part) => {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
});

export function go(path) {
  history.pushState(null, "", `/console${path}`);
  show("moved");
}

const logo = () => el("img", { src: "/console/assets/logo.svg", alt: "", width: 28, height: 28 });

function themed() {
  const root = document.documentElement;
  const made = button("", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try {
      localStorage.setItem("steading-theme", root.dataset.theme);
    } catch {
      // It lasts as long as this page.
    }
  }, "quiet", "moon");
  made.setAttribute("aria-label", "Switch between light and dark");
  return made;
}

function frame() {
  const menu = button("", () => opened(document.body.classList.toggle("menu-open")), "quiet menu", "menu");
  const opened = (is) => menu.setAttribute("aria-expanded", String(is));
  menu.setAttribute("aria-label", "Menu");
  menu.setAttribute("aria-controls", "sections");
  opened(false);
  const leave = button(el("span", { class: "wide-only" }, "Sign out"), async () => {
    await sign_out();
    begin();
  }, "quiet", "leave");
  leave.setAttribute("aria-label", "Sign out");
  const { key } = here.session;
  const foot = el("div", { class: "who" }, el("p", { class: "faint small" }, is_operator() ? "Operator" : here.session.member ? `Member, ${here.session.member.role}` : "Signed in with"), el("p", {}, said(key.name, 60)));
  const nav = el("nav", { id: "sections", "aria-label": "Sections" }, el("ul", {}, sections.filter((section) => !section.hidden?.()).map((section) => el("li", {}, link(section.id ? `/${section.id}` : "", icon(section.icon), section.title)))), foot);
  const bar = el("header", { class: "bar" }, menu, link("", logo(), el("span", { class: "name" }, "Steading")), el("div", { id: "where" }), el("div", { class: "bar-end" }, themed(), leave));
  app.replaceChildren(bar, nav, el("div", { class: "shade", on: { click: () => close_menu() } }), el("main", { id: "main", tabindex: "-1" }), el("div", { id: "toast", role: "status" }));
}

function close_menu() {
  document.body.classList.remove("menu-open");
  document.querySelector(".menu")?.setAttribute("aria-expanded", "false");
}

function where() {
  const of = el("span", { class: "where" }, el("span", { class: "faint wide-only" }, "Tenant"), said(tenant().name || tenant().slug, 40));
  const back = here.tenant ? button("Leave", () => { choose(null); go(""); }, "small") : null;
  back?.setAttribute("aria-label", "Back to the operator's own tenant");
  document.querySelector("#where").replaceChildren(of, ...(back ? [back] : []));
  document.body.classList.toggle("in-other", Boolean(here.tenant));
}

async function show(how) {
  if (!here.session) return;
  leaving.abort();
  leaving = new AbortController();
  close_menu();
  where();
  const [id = "", ...rest] = places();
  const section = sections.find((one) => one.id === id && !one.hidden?.());
  for (const anchor of document.querySelectorAll("nav a")) {
    const is = anchor.pathname === `/console${id ? `/${id}` : ""}`;
    if (is) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  const main = document.querySelector("#main");
  document.title = `${section?.title ?? "Nothing here"} · Steading`;
  const { signal } = leaving;
  let content;
  try {
    content = section ? await section.page({ path: rest, go, again: () => show("again"), signal }) : empty("There is no such page", "It may be one that your key may not see.", link("", "To the overview"));
  } catch (problem) {
    content = trouble(problem, () => show("again"));
  }
  if (signal.aborted) return;
  main.replaceChildren(...[content].flat(Infinity).filter(Boolean));
  if (how === "moved") {
    scrollTo(0, 0);
    main.querySelector("h1")?.focus({ preventScroll: true });
  }
}

async function begin(why) {
  document.body.classList.remove("menu-open", "in-other");
  leaving.abort();
  if (location.pathname === "/console/join" && location.hash) {
    app.replaceChildren(join_page(logo, themed, taken(), () => { history.replaceState(null, "", "/console"); frame(); show("moved"); }));
    document.title = "Join · Steading";
    return;
  }
  if (location.pathname === "/console/arrived") {
    const ticket = taken();
    history.replaceState(null, "", "/console");
    try {
      if (ticket) {
        history.replaceState(null, "", await arrive(ticket));
        frame();
        show("first");
        return;
      }
    } catch (problem) {
      why = `You are not signed in: ${problem.message}.`;
    }
  }
  try {
    if (!(await resume())) {
      const { page, focus } = sign_in_page(logo, themed, why, () => { frame(); show("moved"); });
      app.replaceChildren(page);
      document.title = "Sign in · Steading";
      focus();
      return;
    }
  } catch (problem) {
    app.replaceChildren(el("main", { id: "main", class: "alone" }, trouble(problem, () => begin())));
    return;
  }
  frame();
  show("first");
}

document.addEventListener("click", (event) => {
  const anchor = event.target.closest?.("a[data-here]");
  if (!anchor || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  if (anchor.href !== location.href) history.pushState(null, "", anchor.href);
  if (here.session) show("moved");
  else begin();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.body.classList.contains("menu-open")) {
    close_menu();
    document.querySelector(".menu").focus();
  }
});
document.addEventListener("signed-out", () => {
  if (!here.session) return;
  forget();
  for (const dialog of document.querySelectorAll("dialog")) dialog.close();
  begin("You are signed out: the visit was over, or the key is not good any more.");
});
addEventListener("popstate", () => show("moved"));
begin();
