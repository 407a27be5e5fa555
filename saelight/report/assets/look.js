"use strict";
// What the page knows, and how it says and colours it. Text of a run reaches the document through textContent alone.

let DATA, SAES, COMPARED, VARIANTS;

/** Know these data from now on: a page that a server follows gets others as training goes on. */
function take(data) {
  DATA = data;
  SAES = DATA.saes;
  COMPARED = DATA.sources.length > 1;
  VARIANTS = [...new Set(SAES.map((sae) => sae.variant))];
}

take(JSON.parse(document.getElementById("data").textContent));
let view = 0; // counts what a person chooses anew: a zoom lasts until then
let live = null; // what a server's page has beside: live.js
const DARK = matchMedia("(prefers-color-scheme: dark)");
// Okabe and Ito's colours, distinct to the colour-blind; in the dark their lighter ones first. A shape goes with each.
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#b0589a", "#b97a00", "#2f97d0", "#7a5230"];
const COLOURS_IN_THE_DARK = ["#56b4e9", "#ff8a3d", "#2bc79a", "#e39bc6", "#f0c14b", "#9ad0f5", "#c9a27e"];
const SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star", "pentagon", "hexagon"];
const GLYPHS = ["●", "■", "▲", "◆", "▼", "✚", "✖", "★", "⬟", "⬢"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const NONE = "–";

const $ = (id) => document.getElementById(id);

/** An element with properties, and children that are elements or text. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role" || key === "scope") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Text as Plotly shows it as it is: it reads some HTML. */
function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function colour(variant) {
  const colours = DARK.matches ? COLOURS_IN_THE_DARK : COLOURS;
  return colours[VARIANTS.indexOf(variant) % colours.length];
}

/** The variant's shape; hollow for what did not finish, or is of the folder compared with. */
function shape(variant, hollow = false) {
  return SHAPES[VARIANTS.indexOf(variant) % SHAPES.length] + (hollow ? "-open" : "");
}

/** What colours and shapes stand for. */
function key() {
  return element("p", { className: "key" }, ...VARIANTS.map((variant) => {
    const mark = element("span", {}, GLYPHS[VARIANTS.indexOf(variant) % GLYPHS.length]);
    mark.style.color = colour(variant);
    return element("span", {}, mark, ` ${variant}`);
  }));
}

function number(value, digits = 4) {
  if (value === null || value === undefined) return NONE;
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(4)}M`;
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size > 0 && size < 1e-4) return value.toExponential().replace(/^(\d\.\d\d)\d*/, "$1").replace("e-", "e−");
  return String(+value.toPrecision(digits));
}

function percent(value) {
  return value === null || value === undefined ? NONE : `${+(100 * value).toPrecision(3)} %`;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 120) return `${+seconds.toPrecision(3)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function metric(sae, key) {
  return sae.metrics[key] ?? null;
}

function metricText(sae, key) {
  return DATA.metrics[key]?.percent ? percent(metric(sae, key)) : number(metric(sae, key));
}

/** An SAE's name, with the folder's where two are compared. */
function title(sae) {
  return COMPARED ? `${sae.names[0]} (${DATA.sources[sae.source].name})` : sae.names[0];
}

function stateText(sae) {
  return sae.reason ? `${sae.state}: ${sae.reason}` : sae.state;
}

/** Where none is set, the variant has its own for each width. */
function lrText(sae) {
  return sae.lr === null && sae.variant !== "unknown" ? "default" : number(sae.lr);
}

/** A button that opens an SAE. */
function link(sae) {
  return element("button", { type: "button", className: "link", textContent: title(sae), onclick: () => openSae(sae.id) });
}

/** A table of cells: text, or elements; `text` columns are flush left, `long` ones too, and as wide as there is room. */
function table(heads, rows, text, long) {
  const look = (i) => (long.includes(i) ? "text wrap" : text.includes(i) ? "text" : "");
  const cell = (tag, content, i, more = {}) =>
    element(tag, { className: look(i), ...more }, content instanceof Node ? content : String(content));
  return element(
    "table", {},
    element("thead", {}, element("tr", {}, ...heads.map((head, i) => cell("th", head, i, { scope: "col" })))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((content, i) => cell("td", content, i))))),
  );
}

function show(id, visible) {
  $(id).hidden = !visible;
}
