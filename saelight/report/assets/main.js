// What is on the page, from top to bottom.

let yMetric;

function plural(n, word) {
  return `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
}

function makeHeader() {
  $("title").textContent = DATA.title;
  $("sources").replaceChildren();
  for (const source of DATA.sources) {
    const states = Object.entries(source.states).map(([state, n]) => `${n} ${state}`).join(", ");
    const known = Object.entries(source.about).map(([key, value]) => `${key} ${value}`);
    const total = Object.values(source.states).reduce((sum, n) => sum + n, 0);
    $("sources").append(element("p", {},
      COMPARED ? element("b", {}, `${source.name}: `) : "",
      [`${plural(total, "SAE")} of a ${source.kind}`, states, ...known].filter(Boolean).join(" · ")),
      element("p", { className: "soft" }, element("code", {}, source.path)));
  }
  $("footer").textContent = live ? `Served by saelight ${DATA.version}.`
    : `Made by saelight ${DATA.version}, ${DATA.made}. This file holds all it shows and loads nothing.`;
}

function makeNotices() {
  $("notices").replaceChildren();
  const going = SAES.filter((sae) => ["running", "waiting"].includes(sae.state));
  if (going.length && !live) {
    const running = going.filter((sae) => sae.state === "running").length;
    $("notices").append(element("p", { className: "notice" },
      `A snapshot of ${DATA.made}: ${plural(running, "SAE")} still in training, ${going.length - running} waiting. Run the command again for a newer one.`));
  }
  if (!SAES.length) $("notices").append(element("p", { className: "notice" }, "There is no SAE in this folder yet."));
  else if (!SAES.some((sae) => sae.state === "finished") && !(live && going.length)) {
    $("notices").append(element("p", { className: "notice" }, "No SAE has finished: there is no front and no best one."));
  }
  const problems = DATA.sources.flatMap((source) => source.problems.map((said) => (COMPARED ? `${source.name}: ${said}` : said)));
  if (problems.length) {
    $("notices").append(element("div", { className: "notice" }, "What is missing or damaged:",
      element("ul", {}, ...problems.map((said) => element("li", {}, said)))));
  }
}

function makeBest() {
  show("best", DATA.best.length > 0);
  $("best-rule").textContent = "The finished SAE with the lowest FVU, below 1, in each octave of L0" +
    (COMPARED ? "; the last column has the FVU of the second folder's over that of the first's." : ".");
  $("winners").replaceChildren();
  DATA.winners.forEach((id, i) => {
    if (id === null) return;
    const { name, goal } = DATA.sources[i].metric;
    $("winners").append(element("p", { className: "rule" }, `Of all, the ${goal === "maximize" ? "highest" : "lowest"} ${name}: `, link(SAES[id]),
      ` (${metricText(SAES[id], name.replace(/^val\//, ""))}, at L0 ${number(metric(SAES[id], "l0"))})`));
  });
  const heads = ["L0", ...DATA.sources.flatMap(() => ["SAE", "variant", "d_sae", "lr", "L0", "FVU"]), ...(COMPARED ? ["ratio"] : [])];
  const rows = DATA.best.map((range) => {
    const saes = range.ids.map((id) => (id === null ? null : SAES[id]));
    const cells = saes.flatMap((sae) => sae === null ? [NONE, "", "", "", "", ""]
      : [link(sae), sae.variant, number(sae.d_sae), lrText(sae), number(metric(sae, "l0")), metricText(sae, "fvu")]);
    const ratio = saes.length > 1 && saes.every(Boolean) ? number(metric(saes[1], "fvu") / metric(saes[0], "fvu"), 3) : NONE;
    return [`${number(range.from)} – ${number(range.to)}`, ...cells, ...(COMPARED ? [ratio] : [])];
  });
  $("best-table").replaceChildren(table(heads, rows, DATA.sources.flatMap((_, i) => [6 * i + 1, 6 * i + 2]), []));
}

function makeChoice() {
  const keys = Object.keys(DATA.fronts);
  if (!keys.includes(yMetric)) yMetric = keys.includes("fvu") ? "fvu" : keys[0];
  if (!isOld($("front-choice"), keys)) return;
  $("front-choice").replaceChildren();
  if (keys.length < 2) return;
  const select = element("select", { name: "metric", onchange: (event) => {
    yMetric = event.target.value;
    view += 1;
    redraw();
  } }, ...keys.map((key) => element("option", { value: key, textContent: DATA.metrics[key].label, selected: key === yMetric })));
  $("front-choice").append(element("label", {}, "Against L0", select));
}

function makeEnded() {
  const groups = new Map();
  for (const sae of SAES.filter((one) => one.ended)) {
    const key = JSON.stringify([sae.source, sae.state, sae.reason, sae.reason === null ? sae.id : 0]);
    groups.set(key, [...(groups.get(key) ?? []), sae]);
  }
  const named = (saes) => {
    const links = saes.slice(0, 8).flatMap((sae, i) => (i ? [", ", link(sae)] : [link(sae)]));
    return element("span", {}, ...links, saes.length > 8 ? ` and ${saes.length - 8} more` : "");
  };
  const rows = [...groups.values()].map((saes) => [saes[0].state, saes[0].reason ?? NONE, saes.length, named(saes)]);
  for (const source of DATA.sources) for (const [trial, why] of source.failed_trials) rows.push(["failed trial", why, 1, trial]);
  show("ended", rows.length > 0);
  $("ended-table").replaceChildren(table(["state", "reason", "SAEs", "which"], rows, [0], [1, 3]));
}

/** What is drawn when it comes into view: a node, and how to draw it from the SAEs that are shown. */
const views = new Map();
const inView = new Set();
const stale = new Set();
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) inView.add(target);
    else inView.delete(target);
  }
  refresh();
}, { rootMargin: "200px" });

function unwatch(node) {
  observer.unobserve(node);
  for (const known of [views, inView, stale]) known.delete(node);
}

function watch(node, drawNode) {
  views.set(node, drawNode);
  observer.observe(node);
}

function refresh() {
  const shown = shownSaes();
  for (const node of inView) if (stale.delete(node)) views.get(node)(shown);
}

/** Draw anew what depends on the filters: the table at once, charts where they are seen. */
function redraw() {
  const shown = shownSaes();
  for (const place of document.querySelectorAll(".keys")) place.replaceChildren(key());
  $("count").textContent = `${shown.length} of ${plural(SAES.length, "SAE")}`;
  drawTable(shown);
  for (const node of views.keys()) stale.add(node);
  refresh();
}

function makeCharts() {
  watch($("front-chart"), (shown) => yMetric !== undefined && drawFront(shown, yMetric));
  watch($("curves-charts"), (shown) => {
    const known = shown.filter((sae) => sae.curve), drawn = known.slice(0, DRAWN);
    live?.want(drawn);
    $("curves-rule").textContent = `By optimizer step, thinned, spikes kept. ${said(drawn, known)}`;
    drawAllCurves($("curves-charts"), drawn);
  });

  watch($("density-chart"), (shown) => {
    const known = shown.filter((sae) => sae.density), drawn = known.slice(0, DRAWN);
    $("density-rule").textContent = `At the last validation. ${said(drawn, known)}`;
    drawDensity($("density-chart"), drawn);
  });

  watch($("clusters-chart"), (shown) => drawClusters(shown.filter(clustered)));
}

function clustered(sae) {
  return metric(sae, "silhouette") !== null && metric(sae, "clusters") !== null;
}

/** Whether an element was made for other choices than these; it is then made anew, and else keeps the focus. */
function isOld(node, choices) {
  const key = JSON.stringify(choices);
  if (node.dataset.choices === key) return false;
  node.dataset.choices = key;
  return true;
}

/** Which charts there is anything for. */
function showCharts() {
  show("front", yMetric !== undefined);
  show("curves", SAES.some((sae) => sae.curve));
  show("density", SAES.some((sae) => sae.density));
  show("clusters", SAES.some(clustered));
  const { panels, near, least } = DATA.sensitivity;
  show("sensitivity", panels.length > 0);
  $("sensitivity-rule").textContent =
    `Each finished SAE's FVU over the median FVU of those of its variant whose L0 is within a factor ${near} of its own (at least ` +
    `${least} of them, itself among them): below 1 is better than its like. Lines and bars are medians; all else that varies is in the spread.`;
  if (!isOld($("sensitivity-charts"), panels.map((panel) => panel.setting))) return;
  for (const node of $("sensitivity-charts").children) unwatch(node);
  $("sensitivity-charts").replaceChildren(...panels.map(({ setting }) => {
    const node = element("div", { className: "chart" });
    const now = () => DATA.sensitivity.panels.find((panel) => panel.setting === setting);
    watch(node, (shown) => drawSensitivity(node, now(), new Set(shown.map((sae) => sae.id))));
    return node;
  }));
}

function said(drawn, all) {
  return drawn.length < all.length ? `The first ${drawn.length} of the table are drawn: sort or filter to see others.` : "";
}

/** All of the page, from what it knows now. */
function drawAll() {
  show("filters", SAES.length > 0);
  show("saes", SAES.length > 0);
  makeHeader();
  makeNotices();
  makeBest();
  makeFilters();
  makeChoice();
  makeEnded();
  showCharts();
  redraw();
}

makeCharts();
drawAll();
showNamed();
DARK.addEventListener("change", () => {
  redraw();
  if ($("sae").open) showNamed();
});
document.documentElement.dataset.drawn = "1";
