// Short links: the function `shorten` makes them, the function `go` follows them, and the table `links` has them.
import { createClient } from "/_/sdk.js";

const app = createClient();
const links = app.db("links");

const find = (css, within = document) => within.querySelector(css);
const form = find("#shorten");

function shown(link) {
  const item = find("#link").content.cloneNode(true).firstElementChild;
  const short = find(".short", item);
  short.href = `/s/${link.code}`;
  short.textContent = short.href;
  find(".long", item).textContent = link.url;
  find(".visits", item).textContent = link.visits === 1 ? "1 visit" : `${link.visits} visits`;
  find(".remove", item).addEventListener("click", () => guarded(async () => {
    await links.delete(link.id);
    await load();
  }));
  return item;
}

async function load() {
  const { rows } = app.auth.user ? await links.list({ order: "-created_at", limit: 50 }) : { rows: [] };
  find("#links").replaceChildren(...rows.map(shown));
  find("#empty").hidden = rows.length > 0;
}

async function guarded(work) {
  const problem = find("#problem");
  problem.hidden = true;
  try {
    await work();
  } catch (error) {
    problem.textContent = [error.message, error.hint].filter(Boolean).join(": ");
    problem.hidden = false;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  guarded(async () => {
    await app.auth.anonymous();
    await app.fn("shorten").invoke({ url: new FormData(form).get("url") });
    form.reset();
    await load();
  });
});

// Who comes back from a link sees that it was counted.
addEventListener("focus", () => guarded(load));
guarded(load);
