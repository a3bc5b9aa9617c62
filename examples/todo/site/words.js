// What the page says: short texts, and the toast that shows them for a while.

const $ = (id) => document.getElementById(id);

export const count = (n) => (n === 1 ? "1 todo" : `${n} todos`);

/** What the app said of an error, for people. */
export function sentence({ message, hint }) {
  const texts = [message, hint].filter(Boolean);
  return texts.map((text) => `${text[0].toUpperCase()}${text.slice(1)}.`).join(" ");
}

let toastTimer;
/** Says something for eight seconds, or for as long as it is pointed at. */
export function toast(text, action, act) {
  $("toast-text").textContent = text;
  $("toast-action").hidden = !action;
  $("toast-action").textContent = action ?? "";
  $("toast-action").onclick = () => {
    $("toast").classList.remove("up");
    act();
  };
  $("toast").classList.add("up");
  waitWithToast();
}

function waitWithToast() {
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => $("toast").classList.remove("up"), 8000);
}

for (const name of ["pointerenter", "focusin"]) $("toast").addEventListener(name, () => clearTimeout(toastTimer));
for (const name of ["pointerleave", "focusout"]) $("toast").addEventListener(name, waitWithToast);
