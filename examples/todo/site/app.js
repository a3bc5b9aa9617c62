// A todo list: what it holds, how it looks, what hands can do to it. Who is signed in is account.js's matter.
import { createClient } from "/_/sdk.js";
import { setUpAccount } from "./account.js";
import { count, sentence, toast } from "./words.js";

const app = createClient();
const todos = app.db("todos");
const $ = (id) => document.getElementById(id);

/** Newest first. A row that is on its way to the app is `pending` and has no id yet. */
let rows = [];
let phase = "loading"; // or "ready" or "failed", and then `trouble` says why
let trouble = null;
let view = "all";
let words = "";
let shown = [];
let current = null; // the row that the keyboard is on
let editing = null; // { row, form, input, base: the row as the app has it, theirs: set in a conflict }
const elements = new WeakMap();

// ---- What is shown

function render() {
  const list = $("list");
  const hadFocus = list.contains(document.activeElement);
  const place = shown.indexOf(current);
  rows.sort((a, b) => b.position - a.position);
  const matches = (row) => row.title.toLowerCase().includes(words);
  shown = rows.filter((row) => (view === "all" || row.done === (view === "done")) && matches(row));
  if (!shown.includes(current)) current = shown[Math.min(Math.max(place, 0), shown.length - 1)] ?? null;

  // Elements are moved only where they must be: one that is moved loses the focus.
  const wanted = shown.map(element);
  for (const item of [...list.children]) if (!wanted.includes(item)) item.remove();
  wanted.forEach((item, i) => item !== list.children[i] && list.insertBefore(item, list.children[i] ?? null));
  for (const row of shown) draw(row);
  if (hadFocus && !list.contains(document.activeElement)) focus(current);

  const done = rows.filter((row) => row.done).length;
  const open = rows.length - done;
  $("count-all").textContent = rows.length || "";
  $("count-open").textContent = open || "";
  $("count-done").textContent = done || "";
  $("summary").textContent = summary(open, done);
  $("progress").classList.toggle("idle", rows.length === 0);
  $("ring").setAttribute("stroke-dashoffset", 100 - (100 * done) / (rows.length || 1));
  $("clear").hidden = done === 0;
  $("clear").textContent = `Clear ${done} done`;

  $("panel").setAttribute("aria-busy", phase === "loading");
  $("loading").hidden = phase !== "loading";
  $("failure").hidden = phase !== "failed";
  $("failure-text").textContent = trouble ? sentence(trouble) : "";
  list.hidden = phase !== "ready" || shown.length === 0;
  $("empty").hidden = phase !== "ready" || shown.length > 0;
  [$("empty-title").textContent, $("empty-text").textContent] = emptiness();
}

function summary(open, done) {
  const date = new Date().toLocaleDateString("en-GB", { day: "numeric", month: "long" });
  if (phase !== "ready") return date;
  if (open + done === 0) return `${date} · nothing planned`;
  return `${date} · ${open ? `${open} to do` : "all done"}`;
}

function emptiness() {
  if (words) return ["No match", `No todo here has “${words}” in it.`];
  if (view === "open" && rows.length) return ["All done", "Nothing is open. Enjoy it."];
  if (view === "done" && rows.length) return ["Nothing done yet", "What you tick off comes here."];
  return ["A clear day", "Write down the first thing above. No account needed."];
}

/** The list item of a row, made once. */
function element(row) {
  let item = elements.get(row);
  if (!item) {
    item = $("row").content.firstElementChild.cloneNode(true);
    elements.set(row, item);
  }
  return item;
}

function draw(row) {
  const item = element(row);
  item.classList.toggle("done", row.done);
  item.classList.toggle("pending", Boolean(row.pending));
  item.querySelector(".title").textContent = row.title;
  const box = item.querySelector("input");
  box.checked = row.done;
  box.setAttribute("aria-label", row.title);
  for (const control of item.querySelectorAll("input[type=checkbox], .icon")) {
    control.disabled = Boolean(row.pending);
    control.tabIndex = row === current ? 0 : -1;
  }
  item.querySelector("[data-do=edit]").setAttribute("aria-label", `Edit “${row.title}”`);
  item.querySelector("[data-do=remove]").setAttribute("aria-label", `Remove “${row.title}”`);
}

function focus(row) {
  if (!row) return $("title").focus();
  current = row;
  shown.forEach(draw);
  element(row).querySelector("input").focus();
}

const rowOf = (target) => shown.find((row) => element(row).contains(target));

// ---- What is kept

let loads = 0;
let changes = 0;

/** Reads the list again; what the user changes meanwhile is not undone by an older answer. */
async function load() {
  const turn = (loads += 1);
  let fresh, before;
  try {
    do {
      before = changes;
      fresh = [];
      // A visitor has no rows to ask for.
      if (app.auth.user) for await (const row of todos.all({ order: "-position" })) fresh.push(row);
    } while (before !== changes && turn === loads);
    if (turn !== loads) return;
    const known = new Map(rows.map((row) => [row.id, row]));
    rows = [...rows.filter((row) => row.pending), ...fresh.map((row) => Object.assign(known.get(row.id) ?? {}, row))];
    if (editing && !rows.includes(editing.row)) editing = null;
    [phase, trouble] = ["ready", null];
  } catch (error) {
    if (turn !== loads) return;
    // A list that is there already stays; it was only to be made fresh.
    if (phase !== "ready") [phase, trouble] = ["failed", error];
  }
  render();
}

let queue = Promise.resolve();

/** Shows a change at once, asks the app for it in its turn, and takes it back where the app refuses. */
function attempt(change) {
  const { show, ask, back, failed } = change;
  show();
  changes += 1;
  render();
  queue = queue.then(async () => {
    try {
      await ask();
    } catch (error) {
      back();
      if (error.status === 404 || error.status === 412) {
        toast(`${failed}: it was changed or removed elsewhere.`);
        load();
      } else {
        toast(`${failed}. ${sentence(error)}`, "Try again", () => attempt(change));
      }
    }
    changes += 1;
    render();
  });
  return queue;
}

const add = (row) => rows.push(row);
const drop = (gone) => (rows = rows.filter((row) => !gone.includes(row)));
const content = ({ title, done, position }) => ({ title, done, position });

/** One operation for each row. Up to fifty are one batch, which is done wholly or not at all. */
async function inBatches(all, operation, done) {
  for (let i = 0; i < all.length; i += 50) {
    const part = all.slice(i, i + 50);
    const results = await app.batch(part.map(operation));
    part.forEach((row, n) => done(row, results[n]));
  }
}

function create(title) {
  const row = { title, done: false, position: Date.now(), pending: true };
  return store([row], "Not added");
}

/** Adds rows that the app does not have. The first one makes the visitor an anonymous user. */
function store(fresh, failed) {
  const missing = () => fresh.filter((row) => !row.id);
  return attempt({
    show: () => missing().forEach((row) => add(Object.assign(row, { pending: true }))),
    ask: async () => {
      await app.auth.anonymous();
      const operation = (row) => ({ do: "create", on: "todos", new: content(row) });
      await inBatches(missing(), operation, (row, result) => Object.assign(row, result.row, { pending: false }));
      // The list may have been read in between, with the same rows in it.
      const ids = new Set(fresh.map((row) => row.id));
      rows = rows.filter((row) => fresh.includes(row) || !ids.has(row.id));
    },
    back: () => drop(missing()),
    failed,
  });
}

function toggle(row) {
  const done = !row.done;
  attempt({
    show: () => (row.done = done),
    ask: () => todos.update(row.id, { done }),
    back: () => (row.done = !done),
    failed: "Not saved",
  });
}

function remove(gone) {
  const left = new Set(gone);
  attempt({
    show: () => drop(gone),
    ask: () => inBatches([...left], ({ id }) => ({ do: "delete", on: "todos", id }), (row) => left.delete(row)),
    back: () => left.forEach(add),
    failed: "Not removed",
  });
  const what = gone.length === 1 ? `“${gone[0].title}”` : count(gone.length);
  toast(`Removed ${what}.`, "Undo", () => store(gone.map(content), "Not restored"));
}

// ---- Changing a title in its place

function edit(row) {
  if (row.pending || editing) return;
  const form = $("editor").content.firstElementChild.cloneNode(true);
  const input = form.querySelector("input");
  input.value = row.title;
  // The version that the change is made to, for If-Match; asked for while the user types.
  const base = todos.get(row.id);
  base.catch(() => {});
  editing = { row, form, input, base };
  form.onsubmit = (event) => (event.preventDefault(), commit());
  form.querySelector("[data-do=cancel]").onclick = cancel;
  form.onfocusout = ({ relatedTarget }) => !form.contains(relatedTarget) && !editing?.theirs && commit();
  element(row).append(form);
  element(row).classList.add("editing");
  input.focus();
  input.select();
}

function cancel() {
  if (!editing) return;
  const { row, form } = editing;
  const hadFocus = form.contains(document.activeElement);
  editing = null;
  form.remove();
  element(row).classList.remove("editing");
  render();
  if (hadFocus) focus(row);
}

async function commit() {
  const edited = editing;
  if (!edited || edited.busy) return;
  const { row, input, theirs } = edited;
  const title = input.value.trim();
  if (!title || (title === row.title && !theirs)) return cancel();
  edited.busy = true;
  try {
    const base = await edited.base;
    if (base.title !== row.title) return conflict(edited, base);
    Object.assign(row, await todos.update(row.id, { title }, { ifMatch: base }));
    if (editing === edited) cancel();
  } catch (error) {
    await explain(edited, error);
  } finally {
    edited.busy = false;
  }
}

async function explain(edited, error) {
  try {
    if (error.status === 412) return conflict(edited, await todos.get(edited.row.id));
  } catch (another) {
    error = another;
  }
  if (error.status === 404) {
    cancel();
    load();
    return toast("Not saved: it was removed elsewhere.");
  }
  edited.base = todos.get(edited.row.id);
  edited.base.catch(() => {});
  toast(`Not saved. ${sentence(error)}`, "Try again", commit);
}

/** Somebody changed the row meanwhile: shows their title and lets the user choose. */
function conflict(edited, theirs) {
  const same = theirs.title === edited.row.title;
  Object.assign(edited.row, theirs);
  edited.base = Promise.resolve(theirs);
  if (same) {
    // Only something else of the row is new, ticked off perhaps: the title can still be changed.
    edited.busy = false;
    return commit();
  }
  edited.theirs = theirs;
  const note = edited.form.querySelector(".conflict");
  note.querySelector("span").textContent = `Meanwhile this became “${theirs.title}”.`;
  note.hidden = false;
  render();
  edited.input.focus();
}

// ---- Hands

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const title = $("title").value.trim();
  if (!title) return;
  $("title").value = "";
  if (view === "done") $("views").querySelector("[value=all]").click();
  create(title);
});

$("list").addEventListener("change", ({ target }) => target.type === "checkbox" && toggle(rowOf(target)));
$("list").addEventListener("dblclick", ({ target }) => target.closest(".title") && edit(rowOf(target)));
$("list").addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-do]");
  if (button?.dataset.do === "edit") edit(rowOf(button));
  if (button?.dataset.do === "remove") remove([rowOf(button)]);
});
$("list").addEventListener("focusin", ({ target }) => {
  current = rowOf(target) ?? current;
  shown.forEach(draw);
});

$("views").addEventListener("change", ({ target }) => {
  view = target.value;
  render();
});
$("search").addEventListener("input", ({ target }) => {
  words = target.value.trim().toLowerCase();
  render();
});
$("clear").addEventListener("click", () => {
  remove(rows.filter((row) => row.done && !row.pending));
  focus(current);
});
$("again").addEventListener("click", () => {
  phase = "loading";
  render();
  load();
});
document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("dialog")) return;
  if (target.closest(".editor")) {
    if (key === "Escape") cancel();
    return;
  }
  const inList = $("list").contains(target);
  const isText = target.matches("input:not([type=checkbox], [type=radio])");
  const step = { ArrowDown: 1, j: 1, J: 1, ArrowUp: -1, k: -1, K: -1 }[key];
  if (inList && step) {
    const next = shown[shown.indexOf(current) + step];
    focus(next ?? (step < 0 ? null : current));
  } else if (inList && ["e", "E", "F2"].includes(key)) {
    edit(current);
  } else if (inList && ["Delete", "Backspace"].includes(key)) {
    if (!current.pending) remove([current]);
  } else if (key === "/" && !isText) {
    $("search").focus();
  } else if (isText && key === "ArrowDown" && shown.length) {
    focus(shown[0]);
  } else if (isText && key === "Escape" && target.value) {
    target.value = "";
    target.dispatchEvent(new Event("input"));
  } else {
    return;
  }
  event.preventDefault();
});

// ---- Network, tabs, people

const showNetwork = () => ($("offline").hidden = navigator.onLine);
addEventListener("online", () => (showNetwork(), load()));
addEventListener("offline", showNetwork);
// Another device may have changed the list meanwhile.
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && phase === "ready" && load());

let who = null;
function userChanged(user) {
  const before = who;
  who = user?.id ?? null;
  if (before === who) return;
  // Nobody sees the rows of the one before. What a visitor has just written stays: it made them a user.
  if (before || !user.anonymous) [rows, phase, editing] = [[], "loading", null];
  render();
  load();
}

setUpAccount(app, {
  guestRows: () => (app.auth.user?.anonymous ? rows.filter((row) => !row.pending).map(content) : []),
  bring: (brought) => store(brought, "Not brought along"),
});

showNetwork();
$("day").textContent = new Date().toLocaleDateString("en-GB", { weekday: "long" });
render();
await app.auth.ready;
who = app.auth.user?.id ?? null;
app.auth.onChange(userChanged);
load();
