// Takes a key, once. It goes to the platform and stays nowhere: what the browser keeps of it cannot be read by any script.

import { sign_in } from "./api.js";
import { el } from "./dom.js";
import { trouble } from "./parts.js";

export function sign_in_page(logo, themed, why, then) {
  const problems = el("div", { "aria-live": "polite" }, why ? el("p", { class: "note" }, why) : null);
  const input = el("input", { id: "key", type: "password", autocomplete: "off", spellcheck: "false", autocapitalize: "off", required: true, "aria-describedby": "key-hint" });
  const send = el("button", { type: "submit", class: "button primary wide" }, "Sign in");
  const submit = async (event) => {
    event.preventDefault();
    send.disabled = true;
    send.setAttribute("aria-busy", "true");
    try {
      await sign_in(input.value.trim());
      input.value = "";
      then();
    } catch (problem) {
      problems.replaceChildren(trouble(problem));
      input.select();
    } finally {
      send.disabled = false;
      send.removeAttribute("aria-busy");
    }
  };
  const hint = el("p", { class: "hint", id: "key-hint" }, "The operator’s is in ", el("code", {}, "operator.key"), " in the data directory; ", el("code", {}, "steading key create"), " makes others.");
  const form = el("form", { on: { submit } }, el("div", { class: "field" }, el("label", { for: "key" }, "Your key"), input, hint), problems, send);
  return el("main", { id: "main", class: "alone" },
    el("div", { class: "sign-in" }, el("div", { class: "sign-in-top" }, logo(), el("span", { class: "name" }, "Steading"), themed()),
      el("h1", {}, "Sign in to the console"), form,
      el("p", { class: "faint small" }, "The key is shown once and not kept in this browser. A visit ends after an hour without use, after eight hours, and with its key.")));
}
