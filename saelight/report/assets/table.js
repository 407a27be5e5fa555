// The table of all SAEs, and the filters, which hold for the charts too.

const MOST_ROWS = 2000;
const FIRST = ["l0", "fvu", "loss_recovered", "dead"]; // metrics that are columns whatever is chosen

const column = (label, value, text, more = {}) => ({ label, value, text: text ?? ((sae) => number(value(sae))), ...more });
const words = (label, value, more = {}) => column(label, value, value, { words: true, ...more });
const metricColumn = (key, more = {}) =>
  column({ l0: "L0", fvu: "FVU", dead: "dead" }[key] ?? DATA.metrics[key].label, (sae) => metric(sae, key), (sae) => metricText(sae, key), more);

const allColumns = () => [
  words("name", (sae) => sae.names[0]),
  ...(COMPARED ? [words("from", (sae) => DATA.sources[sae.source].name)] : []),
  words("state", stateText, { long: true }),
  words("variant", (sae) => sae.variant),
  column("d_sae", (sae) => sae.d_sae),
  column("target L0", (sae) => sae.target),
  ...FIRST.filter((key) => key in DATA.metrics).map((key) => metricColumn(key)),
  column("lr", (sae) => sae.lr, lrText),
  column("batch", (sae) => sae.batch),
  column("time", (sae) => sae.seconds, (sae) => duration(sae.seconds)),
  ...(SAES.some((sae) => sae.eta !== null) ? [column("time left", (sae) => sae.eta, (sae) => duration(sae.eta))] : []),
  column("step", (sae) => sae.steps, (sae) => number(sae.steps) + (sae.of_steps ? ` / ${number(sae.of_steps)}` : "")),
  column("seed", (sae) => sae.seed, (sae) => sae.seed ?? NONE, { short: true }),
  column("loss", (sae) => sae.loss, null, { extra: true }),
  column("tokens", (sae) => sae.tokens, null, { extra: true }),
  words("device", (sae) => sae.device ?? NONE, { extra: true }),
  ...Object.keys(DATA.metrics).filter((key) => !FIRST.includes(key)).map((key) => metricColumn(key, { extra: true })),
];

const chosen = { text: "", variant: "", state: "", source: "", front: false, extra: false, sort: null, down: false };

function searched(sae) {
  sae.searched ??= [...sae.names, sae.variant, stateText(sae), ...Object.entries(sae.settings).map(([key, value]) => `${key}=${value}`)]
    .join("\n").toLowerCase();
  return sae.searched;
}

/** The SAEs that the filters leave, in the table's order. */
function shownSaes() {
  const onFront = new Set((DATA.fronts.fvu ?? []).flatMap((front) => [...front.all, ...Object.values(front.variants).flat()]));
  const wanted = chosen.text.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = SAES.filter((sae) =>
    wanted.every((word) => searched(sae).includes(word)) &&
    (!chosen.variant || sae.variant === chosen.variant) &&
    (!chosen.state || sae.state === chosen.state) &&
    (!chosen.source || String(sae.source) === chosen.source) &&
    (!chosen.front || onFront.has(sae.id)));
  return chosen.sort ? kept.sort(order(chosen.sort, chosen.down)) : kept;
}

/** What is not known comes last, whichever way the others go. */
function order({ value, words }, down) {
  return (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null) || a.id - b.id;
    const ascending = words ? String(x).localeCompare(String(y), "en", { numeric: true }) : x < y ? -1 : x > y ? 1 : 0;
    return (down ? -ascending : ascending) || a.id - b.id;
  };
}

function sortBy(chosenColumn) {
  chosen.down = chosen.sort?.label === chosenColumn.label ? !chosen.down : false;
  chosen.sort = chosenColumn;
  redraw();
  const label = $("saes-table").querySelector(`th:nth-child(${columns().findIndex((one) => one.label === chosenColumn.label) + 1}) button`);
  label?.focus();
}

function columns() {
  return allColumns().filter((one) => chosen.extra || !one.extra);
}

function drawTable(shown) {
  const shownColumns = columns();
  const heads = shownColumns.map((one) => {
    const sorted = chosen.sort?.label === one.label;
    const button = element("button", { type: "button", textContent: one.label + (sorted ? (chosen.down ? " ▼" : " ▲") : ""), onclick: () => sortBy(one) });
    const state = sorted ? (chosen.down ? "descending" : "ascending") : "none";
    return element("th", { scope: "col", className: one.words ? "text" : "", "aria-sort": state }, button);
  });
  const rows = shown.slice(0, MOST_ROWS).map((sae) => {
    const cells = shownColumns.map((one) => {
      const text = String(one.text(sae));
      return element("td", { className: [one.words && "text", one.long && "long", one.short && "short"].filter(Boolean).join(" "), textContent: text, title: text });
    });
    const row = element("tr", { tabIndex: 0, "data-id": sae.id, onclick: () => openSae(sae.id) }, ...cells);
    row.addEventListener("keydown", (event) => {
      const next = { ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling }[event.key];
      if (event.key === "Enter") openSae(sae.id);
      else if (next) next.focus();
      else return;
      event.preventDefault();
    });
    return row;
  });
  const made = element("table", {}, element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows));
  $("saes-table").replaceChildren(made);
  if (shown.length > MOST_ROWS) $("saes-table").append(element("p", { className: "soft" }, `${shown.length - MOST_ROWS} more: filter to see them.`));
}

function makeFilters() {
  const select = (label, key, options) =>
    element("label", {}, label, element("select", { name: key, onchange: (event) => choose(key, event.target.value) },
      element("option", { value: "", textContent: "all" }),
      ...options.map(([value, text]) => element("option", { value, textContent: text, selected: value === chosen[key] }))));
  const check = (label, key) =>
    element("label", { className: "check" }, element("input", { type: "checkbox", name: key, checked: chosen[key], onchange: (event) => choose(key, event.target.checked) }), label);
  const states = [...new Set(SAES.map((sae) => sae.state))];
  if (!isOld($("filters"), [VARIANTS, states, COMPARED, "fvu" in DATA.fronts])) return;
  let waiting;
  const search = element("input", { type: "search", name: "text", placeholder: "name, setting=value, …", value: chosen.text, oninput: (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => choose("text", event.target.value), 150);
  } });
  $("filters").replaceChildren(
    element("label", {}, "Search", search),
    ...(VARIANTS.length > 1 ? [select("Variant", "variant", VARIANTS.map((one) => [one, one]))] : []),
    ...(states.length > 1 ? [select("State", "state", states.map((one) => [one, one]))] : []),
    ...(COMPARED ? [select("From", "source", DATA.sources.map((one, i) => [String(i), one.name]))] : []),
    ...("fvu" in DATA.fronts ? [check("on a front of the FVU", "front")] : []),
    check("all columns", "extra"),
    element("output", { id: "count", "aria-live": "polite" }),
  );
}

$("filters").addEventListener("submit", (event) => event.preventDefault());

function choose(key, value) {
  chosen[key] = value;
  view += 1;
  redraw();
}
