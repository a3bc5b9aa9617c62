// What is asked before something is done, and what is shown once.

import { el, said, seen } from "./dom.js";
import { button, copied, trouble } from "./parts.js";

let named = 0;

/** Opens a dialog; Escape closes it. `close` is given to whoever makes the content. */
function opened(title, content, on_close = () => {}, stays = () => false) {
  const before = document.activeElement;
  const id = `dialog-${(named += 1)}`;
  const dialog = el("dialog", { "aria-labelledby": id });
  const close = () => dialog.close();
  dialog.append(el("h2", { id }, title), ...[content(close)].flat());
  dialog.addEventListener("cancel", (event) => { if (stays()) event.preventDefault(); });
  dialog.addEventListener("close", () => {
    dialog.remove();
    before?.focus?.();
    on_close();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** A field of a form: `{ name, label, hint, type, value, options, required, choices }`. */
export function field({ name, label, hint, type = "text", value = "", options, required, ...rest }) {
  const id = `field-${name}-${(named += 1)}`;
  const about = hint ? `${id}-hint` : null;
  const common = { id, name, "aria-describedby": about, required: Boolean(required) };
  let input;
  if (options) {
    const made = options.map((option) => el("option", { value: option.value, selected: option.value === value }, seen(option.label)));
    input = el("select", common, made);
  } else {
    input = el("input", { ...common, type, value, autocomplete: "off", spellcheck: "false", ...rest });
  }
  return el("div", { class: "field" }, el("label", { for: id }, label), input, hint ? el("p", { class: "hint", id: about }, hint) : null);
}

/** Boxes to tick, of one name. */
export function boxes({ name, label, hint, choices }) {
  const made = choices.map(({ value, about, checked }) => el("label", { class: "box" }, el("input", { type: "checkbox", name, value, checked: Boolean(checked) }), el("code", {}, value), about ? el("span", { class: "faint" }, about) : null));
  return el("fieldset", { class: "field" }, el("legend", {}, label), hint ? el("p", { class: "hint" }, hint) : null, el("div", { class: "boxes" }, made));
}

/** Asks with a form, does `work(values)` and gives what came of it, or nothing where somebody thinks better of it. */
export function asked({ title, lead, fields = [], submit, danger, word, work }) {
  return new Promise((resolve) => {
    let outcome;
    let stay = false;
    opened(title, (close) => {
      const cancel = button("Cancel", close);
      const problems = el("div");
      const send = el("button", { type: "submit", class: `button ${danger ? "danger" : "primary"}`, disabled: Boolean(word) }, submit);
      const typed = word ? field({ name: "word", label: ["Type ", el("code", {}, seen(word)), " to confirm"], autofocus: true }) : null;
      typed?.querySelector("input").addEventListener("input", (event) => { send.disabled = event.target.value !== word; });
      const form = el("form", { method: "dialog" }, lead ? el("div", { class: "dialog-lead" }, lead) : null, fields, typed, problems,
        el("div", { class: "dialog-actions" }, cancel, send));
      form.addEventListener("submit", async (event) => {
        event.preventDefault();
        if (send.disabled) return;
        send.disabled = true;
        send.setAttribute("aria-busy", "true");
        // What is under way cannot be called back: nobody is told that it was.
        stay = true;
        cancel.disabled = true;
        try {
          outcome = await work(new FormData(form));
          stay = false;
          close();
        } catch (problem) {
          problems.replaceChildren(trouble(problem));
          stay = false;
          cancel.disabled = false;
          send.disabled = false;
          send.removeAttribute("aria-busy");
        }
      });
      return form;
    }, () => resolve(outcome), () => stay);
  });
}

/** Shows a secret; it is on the page as long as the dialog is open. */
export function once({ title, about, secret, extra = [] }) {
  return new Promise((resolve) => {
    opened(title, (close) => [
      el("p", {}, about),
      copied(secret, "Copy the secret"),
      el("p", { class: "note" }, "It is shown this once. Nobody can read it again, the operator neither."),
      ...extra,
      el("div", { class: "dialog-actions" }, button("I have kept it", close, "primary")),
    ], resolve, () => true);
  });
}

/** What a plan or a deletion means, as a list. */
export function effects(lines) {
  return lines.length ? el("ul", { class: "effects" }, lines.map((line) => el("li", {}, said(line, 300)))) : el("p", { class: "faint" }, "Nothing else changes.");
}
