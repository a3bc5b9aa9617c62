import { createClient } from "/_/sdk.js";

const app = createClient();
const $ = (id) => document.getElementById(id);

async function draw() {
  const { rows } = await (await fetch("/api/counts")).json();
  const items = rows.map((row) => Object.assign(document.createElement("li"), { textContent: `${row.words}: ${row.text}` }));
  $("list").replaceChildren(...items);
}

$("count").onsubmit = async (event) => {
  event.preventDefault();
  await app.auth.ready;
  if (!app.auth.user) await app.auth.anonymous();
  const body = JSON.stringify({ text: $("text").value });
  await app.service("words").fetch("/api/counts", { method: "POST", body });
  await draw();
};

draw();
