// People of the tenant: invited, given another role, removed.

import { get, here, is_operator, may, send } from "./api.js";
import { asked, field, once } from "./dialogs.js";
import { el, said } from "./dom.js";
import { when } from "./format.js";
import { badge, button, empty, heading, lacking, listed, nothing, toast } from "./parts.js";
import { filled } from "./tenants.js";

const ROLES = [
  { value: "developer", label: "Developer: builds in environments, and makes them" },
  { value: "viewer", label: "Viewer: sees everything, changes nothing" },
  { value: "owner", label: "Owner: everything, with keys, members and budgets" },
];

const at = (member) => `/v1/members/${encodeURIComponent(member.id)}`;
const who = (member) => said(member.name || member.email || member.id, 80);

function shown(member) {
  return once({ title: "The invitation", about: ["Send this address to ", el("strong", {}, who(member)), ". Whoever opens it first sets the password. It is good once, until ", when(member.invitation.expires_at), "."], secret: new URL(member.invitation.url, location.href).href });
}

async function invite(again) {
  const made = await asked({
    title: "Invite a member", submit: "Make the invitation",
    lead: "You get an address to send to them. Nothing is mailed.",
    fields: [
      field({ name: "email", label: "Address", type: "email", required: true, autofocus: true }),
      field({ name: "name", label: "Name", hint: "They can change it when they join." }),
      field({ name: "role", label: "Role", options: ROLES }),
    ],
    work: (form) => send("POST", "/v1/members", filled(form, ["email", "name", "role"])),
  });
  if (!made) return;
  await shown(made);
  again();
}

async function invite_again(member, again) {
  const lead = member.state === "joined" ? "They set another password with it, and what they have open ends then. The old password is good until they do." : "The invitation before is good no more.";
  const made = await asked({ title: "Make another invitation?", submit: "Make it", lead: [el("p", {}, who(member)), lead], work: () => send("POST", `${at(member)}/invitation`) });
  if (!made) return;
  await shown(made);
  again();
}

async function change(member, again) {
  const done = await asked({
    title: "Change the role", submit: "Change it", lead: [el("p", {}, who(member)), "They are signed out, and what agents do for them ends: they sign in again."],
    fields: [field({ name: "role", label: "Role", options: ROLES, value: member.role })],
    work: (form) => send("PATCH", at(member), { role: form.get("role") }),
  });
  if (done) {
    toast(`The role is ${done.role}`);
    again();
  }
}

async function remove(member, again) {
  const done = await asked({ title: "Remove this member?", submit: "Remove them", danger: true, lead: [el("p", {}, who(member)), el("p", {}, "They are signed out at once, with all that agents do for them. What they have made stays.")], work: () => send("DELETE", at(member)) });
  if (done) {
    toast("The member is removed");
    again();
  }
}

function state(member) {
  if (member.state === "joined") return badge("joined", "good");
  return new Date(member.invited_until) <= new Date() ? badge("invitation ended", "bad") : badge("invited", "near");
}

export default {
  id: "members",
  title: "Members",
  icon: "members",
  hidden: () => Boolean(here.session.env),
  page({ again }) {
    const title = (...actions) => heading("Members", "People who sign in to this tenant, here and for their agents.", ...actions);
    if (!may("key:admin")) return [title(), lacking("key:admin", "see who is a member")];
    const act = (member, label, work, kind = "small") => {
      const made = button(label, () => work(member, again), kind);
      made.setAttribute("aria-label", `${label} ${(member.name || member.email || "").slice(0, 60)}`);
      return made;
    };
    const columns = [
      { label: "Member", kind: "first", cell: (it) => [el("strong", {}, who(it)), it.id === here.session.member?.id ? badge("you") : null, it.email && it.email !== it.name ? el("span", { class: "faint" }, said(it.email, 80)) : null] },
      { label: "Role", cell: (it) => it.role },
      { label: "State", cell: (it) => [state(it), it.directory ? el("span", { class: "faint small" }, " by ", said(it.directory, 60)) : null] },
      { label: "Used", cell: (it) => (it.last_used_at ? when(it.last_used_at) : nothing()) },
      { label: "", kind: "end", cell: (it) => el("div", { class: "row-actions" }, act(it, "Role", change), it.directory ? null : act(it, "Invite again", invite_again), act(it, "Remove", remove, "small danger-text")) },
    ];
    const load = async (cursor) => {
      const page = await get("/v1/members", { cursor });
      return { rows: page.members, cursor: page.cursor };
    };
    const note = is_operator() ? "As the operator you see those of the tenant that you work in." : null;
    return [title(button("Invite", () => invite(again), "primary", "plus")), note ? el("p", { class: "faint small" }, note) : null, listed("Members", columns, load, empty("Nobody is a member yet", "Invite who is to sign in with an address and a password, instead of a key."))];
  },
};
