// Who is signed in: the button that says it, and the dialog that changes it.
import { count, sentence, toast } from "./words.js";

const $ = (id) => document.getElementById(id);

/** `list` gives the rows of an anonymous user and takes rows into another account. */
export function setUpAccount(app, list) {
  let mode = "signup"; // or "login" or "leave"
  let leaving = false;

  function show(user) {
    const account = user && !user.anonymous;
    $("account-text").textContent = account ? user.email : user ? "Save your list" : "Sign in";
    $("account-initial").textContent = account ? user.email[0].toUpperCase() : "";
    $("account").classList.toggle("named", Boolean(account));
  }

  function turnTo(next) {
    mode = next;
    const mine = list.guestRows().length;
    const words = {
      signup: ["Keep your list", mine ? `Your ${count(mine)} stay${mine === 1 ? "s" : ""} with you, here and on every device.` : "One account, and your list on every device.", "Create account", "Have an account?", "Sign in"],
      login: ["Welcome back", "Sign in to see your list on this device.", "Sign in", "New here?", "Create an account"],
      leave: ["Your account", app.auth.user?.email ?? "", "", "", ""],
    };
    const ids = ["dialog-title", "dialog-text", "submit", "switch-text", "switch"];
    ids.forEach((id, i) => ($(id).textContent = words[mode][i]));
    $("fields").hidden = mode === "leave";
    $("leave").hidden = mode !== "leave";
    $("bring").hidden = mode !== "login" || mine === 0;
    $("bring").querySelector("span").textContent = `Bring my ${count(mine)} along`;
    $("password").autocomplete = mode === "signup" ? "new-password" : "current-password";
    $("password").minLength = mode === "signup" ? 8 : 0;
    $("dialog-error").textContent = "";
  }

  async function enter() {
    const credentials = { email: $("email").value.trim(), password: $("password").value };
    if (mode === "signup") {
      const { email } = await app.auth.signUp(credentials);
      return toast(`Welcome. Your list is kept under ${email}.`);
    }
    const mine = $("bring-along").checked ? list.guestRows() : [];
    await app.auth.login(credentials);
    if (mine.length) list.bring(mine);
  }

  async function leave(options) {
    leaving = true;
    $("dialog").close();
    try {
      await app.auth.logout(options);
      toast("Signed out.");
    } catch (error) {
      toast(`Signed out here only. ${sentence(error)}`);
    } finally {
      leaving = false;
    }
  }

  $("account").addEventListener("click", () => {
    const { user } = app.auth;
    turnTo(!user ? "login" : user.anonymous ? "signup" : "leave");
    $("dialog").showModal();
    if (mode !== "leave") $("email").focus();
  });
  $("switch").addEventListener("click", () => {
    turnTo(mode === "signup" ? "login" : "signup");
    $("email").focus();
  });
  $("credentials").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (mode === "leave" || $("submit").disabled) return;
    $("submit").disabled = true;
    $("dialog-error").textContent = "";
    try {
      await enter();
      $("dialog").close();
    } catch (error) {
      $("dialog-error").textContent = sentence(error);
      $("password").select();
    } finally {
      $("submit").disabled = false;
    }
  });
  $("logout").addEventListener("click", () => leave());
  $("logout-everywhere").addEventListener("click", () => leave({ everywhere: true }));
  $("dialog").addEventListener("close", () => $("credentials").reset());
  $("dialog").addEventListener("click", ({ target }) => {
    if (target === $("dialog") || target.closest("[data-close]")) $("dialog").close();
  });

  let before = app.auth.user;
  app.auth.onChange((user) => {
    show(user);
    if (!user && before && !leaving) toast("You have been signed out. Sign in to see your list.");
    before = user;
  });
  show(app.auth.user);
}
