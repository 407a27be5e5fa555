"use strict";
// All runs and sweeps, the last changed first; asked for again every few seconds.

const EVERY = 4000; // milliseconds
const ticked = new Set();
const $ = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-")) made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

function ago(seconds) {
  const since = Math.max(0, Date.now() / 1000 - seconds);
  for (const [size, word] of [[86400, "day"], [3600, "hour"], [60, "minute"]]) {
    const n = Math.floor(since / size);
    if (n) return `${n} ${word}${n === 1 ? "" : "s"} ago`;
  }
  return "just now";
}

function left(seconds) {
  if (seconds === null) return "–";
  return seconds < 120 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

function tick(key, on) {
  if (on) ticked.add(key);
  else ticked.delete(key);
  $("beside").disabled = ticked.size !== 2;
}

function row(folder) {
  const address = `/show?of=${encodeURIComponent(folder.key)}`;
  const box = element("input", { type: "checkbox", checked: ticked.has(folder.key), "aria-label": `tick ${folder.key}`,
    onchange: (event) => tick(folder.key, event.target.checked) });
  const states = Object.entries(folder.states).map(([state, n]) => `${n} ${state}`).join(", ");
  const done = folder.steps ? `${Math.floor(100 * folder.step / folder.steps)} %` : "–";
  const cells = [[box, "text"], [element("a", { href: address, textContent: folder.key }), "text"], [folder.kind, "text"],
    [String(folder.saes), ""], [folder.trouble ?? (states || "–"), "text wrap"], [done, ""], [left(folder.eta), ""], [ago(folder.changed), ""]];
  return element("tr", {}, ...cells.map(([content, className]) => element("td", { className }, content)));
}

async function refresh() {
  if (document.hidden) return;
  const answer = await fetch("/api/folders").catch(() => null);
  if (!answer?.ok) {
    $("notices").replaceChildren(element("p", { className: "notice" }, "The server does not answer: trying again."));
    return;
  }
  const { folders, strays } = await answer.json();
  const said = [...strays, ...(folders.length ? [] : ["There is no run and no sweep in this folder yet."])];
  $("notices").replaceChildren(...said.map((text) => element("p", { className: "notice" }, text)));
  const heads = ["", "name", "kind", "SAEs", "state", "done", "time left", "changed"];
  const words = ["text", "text", "text", "", "text", "", "", ""];
  $("folders").replaceChildren(element("table", {},
    element("thead", {}, element("tr", {}, ...heads.map((head, i) => element("th", { scope: "col", className: words[i] }, head)))),
    element("tbody", {}, ...folders.map(row))));
  document.documentElement.dataset.drawn = "1";
}

$("beside").addEventListener("click", () => {
  location.href = `/show?${[...ticked].map((key) => `of=${encodeURIComponent(key)}`).join("&")}`;
});
document.addEventListener("visibilitychange", refresh);
setInterval(refresh, EVERY);
refresh();
