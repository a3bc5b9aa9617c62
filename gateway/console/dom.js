// Elements are made by these functions alone: whatever is said by somebody else becomes text, never markup.

/** What runs a text in another direction, or is not seen at all: control characters, marks of direction, odd spaces. */
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const LONGEST = 180;

/** An element with attributes, `on` listeners, and children: elements, texts, or lists of them. */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same within a picture. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "class") {
      node.setAttribute("class", value);
    } else if (name in node && (typeof value === "boolean" || name === "value")) {
      node[name] = value;
    } else {
      node.setAttribute(name, String(value));
    }
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** A text with what is unseen in it made visible. */
export function seen(value) {
  const shown = (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
  return String(value).replace(UNSEEN, shown);
}

/** What somebody has named or said: set apart from the text around it, and no longer than a line or two. */
export function said(value, most = LONGEST) {
  const all = String(value);
  const is_long = all.length > most;
  const short = is_long ? `${all.slice(0, most)}…` : all;
  return el("bdi", { class: "said", title: is_long ? seen(all.slice(0, 2000)) : null }, seen(short));
}

/** The same in letters of one width. */
export function code(value, most = LONGEST) {
  return el("code", {}, said(value, most));
}

/** What leads to a page of the console. */
export function link(path, ...children) {
  return el("a", { href: `/console${path}`, "data-here": "" }, ...children);
}

/** What leads elsewhere, where it is an address of the web. */
export function outward(address, text = address) {
  let url = null;
  try {
    url = new URL(address);
  } catch {
    // Then it is a text.
  }
  if (url?.protocol !== "https:" && url?.protocol !== "http:") return said(text);
  return el("a", { href: url.href, target: "_blank", rel: "noopener noreferrer" }, said(text), icon("out"));
}

const ICONS = {
  out: "M7 3H3v10h10V9M9.5 2.5h4v4M13 3 7.5 8.5",
  home: "M2.5 7.5 8 3l5.5 4.5M4 7v6h8V7",
  tenants: "M2 13.5V5l4.5-2.5L11 5v8.500M11 7.500h3v6H2M5 7h.01M8 7h.01M5 10h.01M8 10h.01",
  environments: "M8 2 14 5 8 8 2 5zM2 8l6 3 6-3M2 11l6 3 6-3",
  keys: "M6.500 9.500 13.500 2.500M11 5l1.500 1.500M9.200 6.800l1.300 1.300M7.500 11a2.750 2.750 0 1 1-5.500 0 2.750 2.750 0 0 1 5.500 0z",
  members: "M6 8a2.5 2.5 0 1 0 0-5 2.500 2.500 0 0 0 0 5zM1.500 13.500c0-2.500 2-4 4.500-4s4.500 1.500 4.500 4M10.500 3.500a2.300 2.300 0 0 1 0 4.400M12 9.800c1.500.500 2.500 1.800 2.500 3.700",
  budgets: "M8 2v12M11 4.500H6.500a2 2 0 0 0 0 4h3a2 2 0 0 1 0 4H4.500",
  usage: "M2.500 13.500h11M4 11V8M7 11V4M10 11V6M13 11V2.500",
  audit: "M4 2h6l3 3v9H4zM6.500 8h4M6.500 11h4M9.500 2v3.500H13",
  connect: "M5.500 3v3M10.500 3v3M4 6h8v2a4 4 0 0 1-8 0zM8 12v2.500",
  menu: "M2 4h12M2 8h12M2 12h12",
  moon: "M13.500 9.500A6 6 0 0 1 6.500 2.500 6 6 0 1 0 13.500 9.500z",
  leave: "M6 2.500H3v11h3M7 8h7M11 5l3 3-3 3",
  copy: "M5.500 5.500h8v8h-8zM10.500 3.500v-1h-8v8h1",
  plus: "M8 3v10M3 8h10",
  check: "M3 8.500 6.500 12 13 4.500",
};

/** A small picture beside a text that says the same. */
export function icon(name) {
  const attributes = { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true", fill: "none" };
  const line = { d: ICONS[name] ?? "", "stroke-linecap": "round", "stroke-linejoin": "round" };
  return svg("svg", attributes, svg("path", { ...line, stroke: "currentColor", "stroke-width": "1.4" }));
}
