// Shows which release answers, by the header that every answer carries.
document.querySelector("#host").textContent = location.host;
fetch(location.pathname, { method: "HEAD", cache: "no-store" })
  .then((answer) => answer.headers.get("x-release") ?? "unknown")
  .catch(() => "unknown")
  .then((release) => { document.querySelector("#release").textContent = release; });
