// Takes up an invitation: who was invited chooses a password, and is signed in.

import { invited, join } from "./api.js";
import { el, link, said } from "./dom.js";
import { later } from "./parts.js";
import { alone, filled_in, labelled } from "./sign-in.js";

/** What the address carries behind its `#`, which no server is sent; it leaves the address at once. */
export function taken() {
  const invitation = location.hash.slice(1);
  if (invitation) history.replaceState(null, "", location.pathname);
  return invitation;
}

export function join_page(logo, themed, invitation, then) {
  const content = later(async () => {
    const told = await invited(invitation);
    const fields = [
      told.is_new ? labelled("name", "What people call you", { autocomplete: "name", value: told.name === told.email ? "" : told.name, required: false }) : null,
      el("input", { type: "hidden", name: "email", value: told.email, autocomplete: "username" }),
      labelled("password", "A password", { type: "password", autocomplete: "new-password", minlength: 8 }, "At least eight characters, and none that everybody tries."),
    ];
    const lead = el("p", {}, told.is_new ? "You are invited to " : "Set another password for ", el("strong", {}, said(told.tenant.name || told.tenant.slug, 80)), " as ", told.role === "owner" ? "an owner" : `a ${told.role}`, ", with the address ", el("strong", {}, said(told.email, 120)), ".");
    const form = filled_in(told.is_new ? "Join" : "Set the password", fields, async (form) => {
      const name = (form.get("name") ?? "").trim();
      await join({ invitation, password: form.get("password"), ...(name ? { name } : {}) });
      then();
    });
    return [lead, form, el("p", { class: "faint small" }, "Sign in later with the tenant ", el("code", {}, said(told.tenant.slug)), ", this address and the password.")];
  });
  return alone(logo, themed, "Join a tenant", content, el("p", { class: "faint small" }, link("", "Sign in instead")));
}
