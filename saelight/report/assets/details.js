// One SAE: everything that is known of it, in a dialog that the page's address names, as #sae-12.

function openSae(id) {
  location.hash = `sae-${id}`;
}

function showNamed() {
  const id = /^#sae-(\d+)$/.exec(location.hash)?.[1];
  const dialog = $("sae");
  if (id === undefined || !SAES[id]) {
    dialog.close();
    return;
  }
  fillDialog(dialog, SAES[id]);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  drawDialog(SAES[id]);
}

function pairs(entries) {
  return element("dl", {}, ...entries.map(([key, value]) => element("div", {}, element("dt", {}, key), element("dd", {}, value instanceof Node ? value : String(value)))));
}

function metricPairs(sae) {
  return Object.keys(DATA.metrics).filter((key) => metric(sae, key) !== null).map((key) => [DATA.metrics[key].label, metricText(sae, key)]);
}

function trainingPairs(sae) {
  return [
    ["variant", sae.variant], ["latents (d_sae)", number(sae.d_sae)], ["L0 wanted", number(sae.target)], ["learning rate", lrText(sae)],
    ["batch size (tokens)", number(sae.batch)], ["seed", sae.seed ?? NONE],
    ["steps", number(sae.steps) + (sae.of_steps ? ` of ${number(sae.of_steps)}` : "")], ["tokens", number(sae.tokens)],
    ["training time", duration(sae.seconds)], ...(sae.eta === null ? [] : [["time left", duration(sae.eta)]]),
    ["tokens per second", number(sae.speed)], ["device", sae.device ?? NONE],
    ["last training loss", number(sae.loss)], ...(sae.group ? [["group", sae.group]] : []),
  ];
}

function fillDialog(dialog, sae) {
  const close = element("button", { type: "button", className: "plain", textContent: "Close", onclick: () => dialog.close() });
  const others = sae.names.slice(1);
  dialog.replaceChildren(
    element("div", { className: "top" }, element("h2", { id: "sae-title" }, title(sae)), close),
    element("p", { id: "sae-state" }, stateText(sae)),
    others.length ? element("p", { className: "soft" }, `The same SAE in the sweep: ${others.join(", ")}`) : "",
    element("div", { className: "grid", id: "sae-curves" }),
    element("div", { className: "chart", id: "sae-density" }),
    element("h2", {}, "Metrics"),
    element("div", { id: "sae-metrics" }, pairs(metricPairs(sae))),
    element("h2", {}, "Training"),
    element("div", { id: "sae-training" }, pairs(trainingPairs(sae))),
    latentsPart(sae),
    foldable("What the sweep sets", sae.settings),
    foldable("Its config", sae.fields),
    sae.folder === null ? element("p", { className: "soft" }, "It is not exported.")
      : element("pre", {}, `sae = saelight.load(${JSON.stringify(sae.folder)})`),
  );
  live?.addTo(dialog, sae);
}

function foldable(label, settings) {
  const entries = Object.entries(settings);
  return entries.length ? element("details", {}, element("summary", {}, label), pairs(entries)) : "";
}

function drawDialog(sae) {
  show("sae-density", sae.density !== null);
  if (sae.density) drawDensity($("sae-density"), [sae]);
  show("sae-curves", sae.curve !== null);
  if (sae.curve) {
    live?.want([sae]);
    drawAllCurves($("sae-curves"), [sae]);
  }
}

/** Loss, L0 and FVU by step, a chart each. */
function drawAllCurves(parent, saes) {
  const labels = { loss: "training loss", l0: "L0", fvu: "FVU" };
  if (!parent.children.length) parent.append(...Object.keys(labels).map(() => element("div", { className: "chart" })));
  Object.entries(labels).forEach(([key, label], i) => drawCurves(parent.children[i], saes, key, label));
}

addEventListener("hashchange", showNamed);
$("sae").addEventListener("close", () => {
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
});
$("sae").addEventListener("click", (event) => {
  if (event.target === $("sae")) $("sae").close(); // its backdrop
});
