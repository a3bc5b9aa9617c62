// Takes a key, or a member's address and password, once. They go to the platform and stay nowhere: what the browser keeps of
// them cannot be read by any script.

import { sign_in, ways as others } from "./api.js";
import { el, said } from "./dom.js";
import { trouble } from "./parts.js";

const TENANT = "steading-console-sign-in";

/** Where a member signed in last: the tenant of the address, else what this browser remembers. */
function last_tenant() {
  const asked = new URLSearchParams(location.search).get("tenant");
  try {
    return asked ?? localStorage.getItem(TENANT) ?? "";
  } catch {
    return asked ?? "";
  }
}

function remember(tenant) {
  try {
    localStorage.setItem(TENANT, tenant);
  } catch {
    // It is typed again.
  }
}

/** A labelled field of a page that stands alone. */
export function labelled(id, label, attributes, hint = null) {
  const input = el("input", { id, name: id, spellcheck: "false", autocapitalize: "off", required: true, "aria-describedby": hint ? `${id}-hint` : null, ...attributes });
  return el("div", { class: "field" }, el("label", { for: id }, label), input, hint ? el("p", { class: "hint", id: `${id}-hint` }, hint) : null);
}

/** A page that stands alone, without the frame. */
export function alone(logo, themed, title, ...content) {
  return el("main", { id: "main", class: "alone" },
    el("div", { class: "sign-in" }, el("div", { class: "sign-in-top" }, logo(), el("span", { class: "name" }, "Steading"), themed()), el("h1", {}, title), content));
}

/** A form that does `work(values)` and says what went wrong. */
export function filled_in(label, fields, work, problems = el("div", { "aria-live": "polite" })) {
  const send = el("button", { type: "submit", class: "button primary wide" }, label);
  const submit = async (event) => {
    event.preventDefault();
    const form = event.target;
    send.disabled = true;
    send.setAttribute("aria-busy", "true");
    try {
      await work(new FormData(form));
      form.reset();
    } catch (problem) {
      problems.replaceChildren(trouble(problem));
      form.querySelector("input[type=password]")?.select();
    } finally {
      send.disabled = false;
      send.removeAttribute("aria-busy");
    }
  };
  return el("form", { on: { submit } }, fields, problems, send);
}

function by_key(problems, then) {
  const hint = ["The operator’s is in ", el("code", {}, "operator.key"), " in the data directory; ", el("code", {}, "steading key create"), " makes others."];
  const field = labelled("key", "Your key", { type: "password", autocomplete: "off" }, hint);
  return filled_in("Sign in", [field], async (form) => {
    await sign_in({ key: form.get("key").trim() });
    then();
  }, problems);
}

function by_password(problems, then) {
  const fields = [
    labelled("tenant", "Tenant", { autocomplete: "organization", value: last_tenant() }, "Its slug, as it is in your invitation."),
    labelled("email", "Address", { type: "email", autocomplete: "username" }),
    labelled("password", "Password", { type: "password", autocomplete: "current-password" }),
  ];
  return filled_in("Sign in", fields, async (form) => {
    const [tenant, email] = [form.get("tenant").trim(), form.get("email").trim()];
    await sign_in({ tenant, email, password: form.get("password") });
    remember(tenant);
    then();
  }, problems);
}

export function sign_in_page(logo, themed, why, then) {
  const problems = el("div", { "aria-live": "polite" }, why ? el("p", { class: "note" }, why) : null);
  const place = el("div", { class: "ways" });
  const directory = el("div", { class: "directory" });
  // Without an answer the other ways are there.
  others().then(({ directory: found }) => {
    if (!found) return;
    const next = encodeURIComponent(location.pathname + location.search);
    directory.replaceChildren(el("a", { class: "button primary wide", href: `/oauth/directory?next=${next}` }, el("span", {}, "Sign in with ", said(found.name, 60))));
  }).catch(() => {});
  const ways = [["key", "With a key", by_key], ["member", "As a member", by_password]];
  const show = (chosen) => {
    const [, , make] = ways.find(([name]) => name === chosen);
    place.replaceChildren(make(problems, then));
    for (const made of choice.children) made.setAttribute("aria-pressed", String(made.dataset.way === chosen));
    // What is known already is not typed again.
    ([...place.querySelectorAll("input")].find((input) => !input.value) ?? place.querySelector("input")).focus();
  };
  const choice = el("div", { class: "choice", role: "group", "aria-label": "How" }, ways.map(([name, label]) => el("button", { type: "button", "data-way": name, on: { click: () => { problems.replaceChildren(); show(name); } } }, label)));
  const page = alone(logo, themed, "Sign in to the console", directory, choice, place,
    el("p", { class: "faint small" }, "What you type is not kept in this browser. A visit ends after an hour without use, after eight hours, and with what it stands on."));
  return { page, focus: () => show(last_tenant() ? "member" : "key") };
}
