// The page to sign in on: one form at a time, and what was mailed is used when somebody says so, never by loading.
import { createClient } from "/_/sdk.js";

// The client takes what is its own out of the address.
const hash = location.hash.slice(1);
const { auth } = createClient();
const $ = (id) => document.getElementById(id);
const { methods: listed, providers: named, to } = document.body.dataset;
const split = (text) => text.split(" ").filter(Boolean);
const on = new Set(split(listed));
const go = () => location.replace(to);
/** Goes on, after a second factor was set up where the app requires one. */
const leave = async () => (on.has("mfa_required") && !(await auth.mfa.list()).open ? setUp() : go());

const EMAIL = { name: "email", label: "Email", type: "email", autocomplete: "username" };
const PASSWORD = { name: "password", label: "Password", type: "password", autocomplete: "current-password" };
const NEW = { name: "password", label: "New password", type: "password", autocomplete: "new-password", minlength: "8" };
const CODE = { name: "code", label: "Code", inputmode: "numeric", autocomplete: "one-time-code", maxlength: "9" };

const PHONE = { name: "phone", label: "Phone number with its country, +49…", type: "tel", autocomplete: "tel" };
const RECOVERY = { name: "recovery", label: "Recovery code", autocomplete: "off", maxlength: "24" };

/** Shows one form: its fields, what its button does, and where one can go instead. */
function show({ title, lead = "", fields = [], button, act, more = [] }) {
  $("title").textContent = title;
  document.title = `${title} – ${document.querySelector(".app").textContent}`;
  $("lead").textContent = lead;
  $("note").textContent = "";
  const inputs = fields.map(({ label, value = email(), ...attributes }) => {
    const input = Object.assign(document.createElement("input"), { required: true });
    for (const [name, text] of Object.entries(attributes)) input.setAttribute(name, text);
    if (attributes.name === "email") input.value = value;
    const field = document.createElement("label");
    field.append(label, input);
    return field;
  });
  const send = Object.assign(document.createElement("button"), { textContent: button });
  $("form").replaceChildren(...inputs, ...(button ? [send] : []));
  $("form").onsubmit = (event) => {
    event.preventDefault();
    const missing = [...$("form").elements].find((input) => !input.checkValidity());
    if (missing) {
      $("note").textContent = missing.validationMessage;
      return missing.focus();
    }
    run(() => act(Object.fromEntries(new FormData($("form")))));
  };
  const links = more.filter(Boolean).map(([text, go]) =>
    Object.assign(document.createElement("button"), { type: "button", textContent: text, onclick: () => run(go) }),
  );
  $("more").replaceChildren(...links);
  ($("form").querySelector("input") ?? $("title")).focus();
}

async function run(act) {
  const buttons = [...document.querySelectorAll("button")];
  for (const button of buttons) button.disabled = true;
  $("note").textContent = "";
  try {
    await act();
  } catch (error) {
    if (error.mfa) return second(error.mfa);
    if (error instanceof DOMException) return void ($("note").textContent = "No passkey was used.");
    $("note").textContent = words(error);
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

function words({ status, message }) {
  if (status === 0) return "There is no connection. Try again in a moment.";
  if (status === 429) return "There were too many attempts. Wait a little, then try again.";
  return `${message.charAt(0).toUpperCase()}${message.slice(1)}.`;
}

let typed = "";
const email = () => typed;
const remember = (values) => {
  typed = values.email ?? typed;
  return values;
};

const back = ["Back", () => start()];
const guest = () => on.has("anonymous") && ["Go on without an account", async () => (await auth.anonymous(), leave())];

const KNOWN = { github: "GitHub", wechat: "WeChat" };
const titled = (name) => KNOWN[name] ?? name.split("-").map((it) => it.charAt(0).toUpperCase() + it.slice(1)).join(" ");
const others = split(named).map((name) => [`Continue with ${titled(name)}`, () => auth.signInWith(name)]);
/** The way in by a passkey; who does not want to may go on otherwise. */
const passkey = () =>
  on.has("passkey") && auth.passkey.isSupported() && ["Use a passkey", async () => (await auth.passkey.signIn(), leave())];

function start() {
  const mail = on.has("otp") && ["Mail me a code instead", byMail];
  const [key, text] = [passkey(), on.has("phone") && ["Text me a code", byPhone]];
  if (on.has("password")) {
    const create = on.has("signup") && ["Create an account", signUp];
    const more = [key, ...others, create, mail, text, ["I forgot my password", forgot], guest()];
    return show({ title: "Sign in", fields: [EMAIL, PASSWORD], button: "Sign in", act: logIn, more });
  }
  if (on.has("otp")) return byMail();
  if (on.has("phone")) return byPhone();
  if (key) return show({ title: "Sign in", button: key[0], act: key[1], more: [...others, guest()] });
  if (others.length) return show({ title: "Sign in", more: [...others, guest()] });
  if (on.has("anonymous")) return show({ title: "Welcome", button: "Go on", act: guest()[1] });
  show({ title: "Sign in", lead: "Nobody signs in here yet." });
}

async function logIn(values) {
  try {
    await auth.login(remember(values));
  } catch (error) {
    if (error.status === 403 && error.hint?.includes("otp/verify")) return enter("Confirm your address: we mailed a code to");
    throw error;
  }
  leave();
}

function signUp() {
  const act = async (values) => ((await auth.signUp({ ...remember(values), redirect: to })) ? leave() : enter("We mailed a code to"));
  show({ title: "Create an account", fields: [EMAIL, NEW], button: "Create account", act, more: [back] });
}

function byMail() {
  const act = async ({ email }) => {
    await auth.otp(email, { redirect: to });
    typed = email;
    enter("If all is well, a code is on its way to");
  };
  const text = on.has("phone") && ["Text me a code instead", byPhone];
  const more = on.has("password") ? [back, guest()] : [passkey(), ...others, text, guest()];
  show({ title: "Sign in", lead: "We mail you a code. No password needed.", fields: [EMAIL], button: "Mail me a code", act, more });
}

function byPhone() {
  const act = async ({ phone }) => {
    await auth.textCode(phone);
    const verify = async ({ code }) => (await auth.verifyText({ phone, code }), leave());
    const lead = `If all is well, a code is on its way to ${phone}.`;
    show({ title: "Enter the code", lead, fields: [CODE], button: "Go on", act: verify, more: [back] });
  };
  const more = on.has("password") || on.has("otp") ? [back, guest()] : [passkey(), ...others, guest()];
  show({ title: "Sign in", lead: "We text you a code. No password needed.", fields: [PHONE], button: "Text me a code", act, more });
}

function enter(lead) {
  const act = async ({ code }) => (await auth.verify({ email: email(), code }), leave());
  show({ title: "Enter the code", lead: `${lead} ${email()}.`, fields: [CODE], button: "Go on", act, more: [back] });
}

function forgot() {
  const act = async ({ email: address }) => {
    await auth.forgotPassword(address, { redirect: to });
    typed = address;
    const reset = async ({ code, password }) => (await auth.resetPassword({ email: email(), code, password }), leave());
    const lead = `If there is an account, a code is on its way to ${email()}.`;
    show({ title: "New password", lead, fields: [CODE, NEW], button: "Set password", act: reset, more: [back] });
  };
  show({ title: "New password", lead: "We mail you a code.", fields: [EMAIL], button: "Mail me a code", act, more: [back] });
}

/** The first factor was right. */
function second({ factors } = {}) {
  if (factors && !factors.includes("totp")) {
    const [button, act] = passkey() || [];
    return show({ title: "Second step", lead: "Go on with your passkey.", button, act, more: [back] });
  }
  const act = async ({ code }) => (await auth.mfa.verify({ code }), go());
  const lead = "Enter the code that your authenticator app shows.";
  show({ title: "Second step", lead, fields: [CODE], button: "Go on", act, more: [["Use a recovery code", recover], back] });
}

function recover() {
  const act = async ({ recovery }) => (await auth.mfa.verify({ recoveryCode: recovery }), go());
  const lead = "Enter one of the codes that you have kept. It works once.";
  show({ title: "Second step", lead, fields: [RECOVERY], button: "Go on", act, more: [["Use the authenticator", () => second()], back] });
}

/** A passkey for who is signed in. */
function addPasskey() {
  const act = async () => (await auth.passkey.register(), go());
  const lead = "Sign in with a finger, your face or a PIN next time. No password needed.";
  show({ title: "Add a passkey", lead, button: "Add a passkey", act, more: [["Not now", go]] });
}

/** The address of who is signed in, where nobody has shown yet that it is theirs. */
async function confirm(address, then) {
  await auth.changeEmail({ email: address });
  const act = async ({ code }) => (await auth.verifyEmail({ email: address, code }), then());
  const lead = `A second step needs an address that is confirmed. Enter the code that was mailed to ${address}.`;
  show({ title: "Confirm your address", lead, fields: [CODE], button: "Confirm", act, more: [["Send another code", () => confirm(address, then)]] });
}

/** An authenticator for who is signed in. */
async function setUp() {
  const { email: address, email_verified: confirmed } = auth.user ?? {};
  if (address && !confirmed) return confirm(address, setUp);
  const { secret, uri } = await auth.mfa.enrol();
  const act = async ({ code }) => {
    const codes = await auth.mfa.activate(code);
    const lead = `Keep these recovery codes where you find them without your phone. Each works once.\n\n${codes.join("\n")}`;
    show({ title: "Recovery codes", lead, button: "I have kept them", act: go });
  };
  const lead = `Add this app to your authenticator with the key\n\n${secret.match(/.{1,4}/g).join(" ")}\n\nthen enter the code that it shows.`;
  const open = ["Open the authenticator on this device", () => location.assign(uri)];
  show({ title: "Set up a second step", lead, fields: [CODE], button: "Set up", act, more: [open] });
}

/** What a mailed link has brought. Only the button uses it: programs that look through mail open links too. */
function arrived(kind, token) {
  history.replaceState(null, "", location.pathname + location.search);
  const forms = {
    signup: {
      title: "Confirm your address",
      lead: "Enter the password that your account is to have.",
      fields: [NEW],
      button: "Confirm",
      act: async ({ password }) => (await auth.verify({ token, password }), leave()),
    },
    link: { title: "Sign in", button: "Sign in", act: async () => (await auth.verify({ token }), leave()) },
    reset: {
      title: "New password",
      fields: [NEW],
      button: "Set password",
      act: async ({ password }) => (await auth.resetPassword({ token, password }), leave()),
    },
    email: {
      title: "New address",
      button: "Use this address",
      act: async () => {
        const { email: address } = await auth.verifyEmail({ token });
        show({ title: "Done", lead: `${address} is your address from now on.`, button: "Go on", act: () => leave() });
      },
    },
  };
  show({ ...forms[kind], more: kind === "email" ? [] : [back] });
}

const AWAY = {
  denied: "You did not sign in there.",
  failed: "That did not work. Try again, or choose another way.",
  unavailable: "There is no answer from there. Try again in a moment.",
};

const [kind, token] = Object.entries(Object.fromEntries(new URLSearchParams(hash)))[0] ?? [];
const returned = await auth.returned;
if (["link", "signup", "reset", "email"].includes(kind)) arrived(kind, token);
else if (kind === "mfa") run(setUp);
else if (kind === "passkey") addPasskey();
else if (returned?.mfa) second(returned.mfa);
else if (returned && !returned.error) run(leave);
else start();
if (returned?.error && !returned.mfa) $("note").textContent = AWAY[returned.error] ?? words({ message: returned.message ?? AWAY.failed });
