// One board for everybody: cards are rows, kept live; who is here and where they point goes through a channel.

import { createClient } from "/_/sdk.js";

const LANES = ["ideas", "doing", "done"];
const NAMES = ["Otter", "Heron", "Lynx", "Finch", "Badger", "Wren", "Marten", "Plover", "Stoat", "Tern", "Vole", "Kite"];
/** A cursor is sent at most this often, and is gone after this long without a move. */
const POINT_MS = 60;
const STILL_MS = 5_000;

const find = (selector) => document.querySelector(selector);
const board = find("#board");
const app = createClient();
const cards = app.db("cards");
let rows = [];

/** A number that stays the same for a text. */
function sum(text) {
  let sum = 0;
  for (const letter of text) sum = (sum * 31 + letter.codePointAt(0)) % 100_003;
  return sum;
}

const hue = (text) => String((sum(text) * 47) % 360);
const nameOf = (user) => NAMES[sum(user) % NAMES.length];

function notice(text) {
  const place = find("#notice");
  place.textContent = text ?? "";
  place.hidden = !text;
}

/** Does it, and says what went wrong. */
async function attempt(act) {
  try {
    await act();
    notice(null);
  } catch (error) {
    notice(`${error.message}${error.hint ? `: ${error.hint}` : ""}`);
  }
}

const drawn = new Map();

function element(row) {
  const known = drawn.get(row.id);
  if (known) return known;
  const card = find("#card").content.firstElementChild.cloneNode(true);
  card.dataset.id = row.id;
  card.querySelector("button").addEventListener("click", () => attempt(() => cards.delete(row.id)));
  drawn.set(row.id, card);
  return card;
}

function draw() {
  const ids = new Set(rows.map((row) => row.id));
  for (const [id, card] of drawn) {
    if (!ids.has(id)) card.remove(), drawn.delete(id);
  }
  for (const lane of LANES) {
    const section = find(`[data-lane=${lane}]`);
    const here = rows.filter((row) => row.lane === lane);
    const list = section.querySelector("ol");
    here.forEach((row, place) => {
      const card = element(row);
      card.querySelector("p").textContent = row.text;
      card.querySelector("button").hidden = row.owner !== app.auth.user?.id;
      card.style.setProperty("--hue", hue(row.owner ?? ""));
      if (list.children[place] !== card) list.insertBefore(card, list.children[place] ?? null);
    });
    section.querySelector("b").textContent = here.length || "";
  }
  board.ariaBusy = "false";
}

/** A place after the last card of a lane, or between the one at `before` and the one above it. */
function position(lane, before, moved) {
  const here = rows.filter((row) => row.lane === lane && row.id !== moved);
  const at = before ? here.findIndex((row) => row.id === before) : here.length;
  const [above, below] = [here[at - 1]?.position, here[at]?.position];
  if (above === undefined) return below === undefined ? 0 : below - 1;
  return below === undefined ? above + 1 : (above + below) / 2;
}

async function move(id, lane, before) {
  const row = rows.find((row) => row.id === id);
  if (!row || (row.lane === lane && before === id)) return;
  const place = { lane, position: position(lane, before, id) };
  // Here first; if the app refuses, what it says instead comes by itself.
  const was = { lane: row.lane, position: row.position };
  Object.assign(row, place);
  sort();
  draw();
  await attempt(() =>
    cards.update(id, place).catch((error) => {
      Object.assign(row, was);
      sort();
      draw();
      throw error;
    }),
  );
}

const sort = () => rows.sort((a, b) => a.position - b.position || (a.id < b.id ? -1 : 1));

find("#composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = find("#text");
  const text = input.value.trim();
  if (!text) return;
  input.value = "";
  attempt(() =>
    cards.create({ text, position: position("ideas") }).catch((error) => {
      input.value ||= text;
      throw error;
    }),
  );
});

// Cards are moved with the pointer, or with the arrow keys.
board.addEventListener("pointerdown", (event) => {
  const card = event.target.closest(".card");
  if (!card || event.target.closest("button") || event.button !== 0) return;
  const start = { x: event.clientX, y: event.clientY };
  let target = null;
  const follow = ({ clientX: x, clientY: y }) => {
    card.style.setProperty("--dx", `${x - start.x}px`);
    card.style.setProperty("--dy", `${y - start.y}px`);
    card.classList.add("dragged");
    const under = document.elementFromPoint(x, y);
    const lane = under?.closest(".lane");
    document.querySelectorAll(".lane").forEach((each) => each.classList.toggle("over", each === lane));
    target = lane && { lane: lane.dataset.lane, before: under.closest(".card")?.dataset.id };
  };
  const drop = () => {
    removeEventListener("pointermove", follow);
    card.classList.remove("dragged");
    document.querySelectorAll(".over").forEach((each) => each.classList.remove("over"));
    if (target) move(card.dataset.id, target.lane, target.before);
  };
  addEventListener("pointermove", follow);
  addEventListener("pointerup", drop, { once: true });
});

board.addEventListener("keydown", (event) => {
  const card = event.target.closest(".card");
  const row = card && rows.find((row) => row.id === card.dataset.id);
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const lane = row && step && LANES[LANES.indexOf(row.lane) + step];
  if (!lane) return;
  event.preventDefault();
  move(row.id, lane).then(() => card.focus());
  card.focus();
});

/** Who is here, and where they point. */
async function meet() {
  const me = app.auth.user.id;
  const room = app.channel("board");
  const people = find("#people");
  const cursors = new Map();
  const show = (members) => {
    const users = [me, ...new Set(members.map((member) => member.user).filter((user) => user !== me))];
    const items = users.map((user) => {
      const item = document.createElement("li");
      item.textContent = nameOf(user).slice(0, 2);
      item.title = user === me ? `${nameOf(user)}, you` : nameOf(user);
      item.classList.toggle("me", user === me);
      item.style.setProperty("--hue", hue(user));
      return item;
    });
    people.replaceChildren(...items);
    for (const [id, { element }] of cursors) {
      if (!members.some((member) => member.id === id)) element.remove(), cursors.delete(id);
    }
  };
  room.presence.on(show);
  show([]);
  room.presence.set({});
  room.on("point", ({ x, y }, from) => {
    let cursor = cursors.get(from.id);
    if (!cursor) {
      const element = document.createElement("div");
      element.className = "cursor";
      element.append(Object.assign(document.createElement("span"), { textContent: nameOf(from.user) }));
      element.style.setProperty("--hue", hue(from.user));
      cursors.set(from.id, (cursor = { element }));
      find("#cursors").append(element);
    }
    const { clientWidth, clientHeight } = board;
    cursor.element.style.setProperty("--x", `${x * clientWidth}px`);
    cursor.element.style.setProperty("--y", `${y * clientHeight}px`);
    clearTimeout(cursor.timer);
    cursor.timer = setTimeout(() => (cursor.element.remove(), cursors.delete(from.id)), STILL_MS);
  });
  let last = 0;
  board.addEventListener("pointermove", ({ clientX, clientY }) => {
    if (performance.now() - last < POINT_MS) return;
    last = performance.now();
    const { left, top, width, height } = board.getBoundingClientRect();
    // Where somebody points is of no use later: what does not arrive is not sent again.
    room.send("point", { x: (clientX - left) / width, y: (clientY - top) / height }).catch(() => {});
  });
}

await app.auth.ready;
await attempt(async () => {
  await app.auth.anonymous();
  const failed = (error) => notice(error.message);
  cards.live({ order: "position" }, (now) => ((rows = now), draw()), failed);
  await meet();
});
