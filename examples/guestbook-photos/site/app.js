// A guestbook: rows in the table `entries`, photos in the bucket `photos`, each below the id of who has sent it.
import { createClient } from "/_/sdk.js";

const PAGE = 12;
const LARGEST = 10_000_000;

const app = createClient();
const entries = app.db("entries");
const photos = app.files("photos");

const find = (css, within = document) => within.querySelector(css);
const form = find("#write");
const list = find("#entries");
let older = null;

function show(entry, place) {
  const item = find("#entry").content.cloneNode(true).firstElementChild;
  find(".message", item).textContent = entry.message;
  find(".name", item).textContent = entry.name;
  const time = find("time", item);
  time.dateTime = entry.created_at;
  time.textContent = new Date(entry.created_at).toLocaleDateString(undefined, { dateStyle: "medium" });
  if (entry.photo) {
    const view = find(".view", item);
    const image = find("img", view);
    image.alt = `Photo from ${entry.name}`;
    // Twice the size in which it is shown, for fine screens.
    image.src = photos.url(entry.photo, { w: 960, h: 720, fit: "cover", format: "jpeg" });
    view.href = photos.url(entry.photo);
    view.hidden = false;
  }
  const remove = find(".remove", item);
  remove.hidden = entry.owner !== app.auth.user?.id;
  remove.addEventListener("click", () => guarded(async () => {
    await entries.delete(entry.id);
    if (entry.photo) await photos.remove(entry.photo);
    item.remove();
    settle();
  }));
  place === "top" ? list.prepend(item) : list.append(item);
}

function settle() {
  list.ariaBusy = "false";
  find("#empty").hidden = list.children.length > 0;
  find("#more").hidden = !older;
}

function complain(error) {
  const problem = find("#problem");
  problem.textContent = error ? [error.message, error.hint].filter(Boolean).join(": ") : "";
  problem.hidden = !error;
}

async function guarded(work) {
  complain(null);
  try {
    await work();
  } catch (error) {
    complain(error);
  }
}

async function load() {
  const page = await entries.list({ order: "-created_at", limit: PAGE, cursor: older ?? undefined });
  older = page.cursor ?? null;
  for (const entry of page.rows) show(entry, "end");
  settle();
}

async function send() {
  const { name, message } = Object.fromEntries(new FormData(form));
  const file = find("#photo").files[0];
  const user = await app.auth.anonymous();
  let photo;
  if (file) {
    if (file.size > LARGEST) throw new Error("the photo is larger than 10 MB");
    photo = `${user.id}/${crypto.randomUUID()}.${file.name.split(".").pop().toLowerCase()}`;
    const progress = find("#progress");
    progress.hidden = false;
    const onProgress = ({ sent, size }) => (progress.value = size ? sent / size : 1);
    await photos.upload(photo, file, { ifAbsent: true, onProgress }).finally(() => (progress.hidden = true));
  }
  show(await entries.create({ name, message, photo }), "top");
  form.reset();
  preview();
  settle();
}

function preview() {
  const file = find("#photo").files[0];
  const image = find("#preview");
  URL.revokeObjectURL(image.src);
  image.hidden = !file;
  if (file) image.src = URL.createObjectURL(file);
  else image.removeAttribute("src");
  find("#pick").textContent = file ? file.name : "Add a photo";
}

find("#photo").addEventListener("change", preview);
find("#more").addEventListener("click", () => guarded(load));
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = find("#send");
  button.disabled = true;
  await guarded(send);
  button.disabled = false;
});

await app.auth.ready;
await guarded(load);
