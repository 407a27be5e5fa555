// The charts, by Plotly: each function draws one anew, from the SAEs that are shown.

const DRAWN = 24; // SAEs whose curves are drawn at once
const SETTINGS = {
  "sae.lr": "learning rate", "data.batch_size": "batch size (tokens)", "sae.d_sae": "latents (d_sae)",
  "sae.expansion": "expansion (d_sae / d_in)", "sae.encoder_scale": "encoder's initial scale",
  "sae.decoder_scale": "decoder's initial scale", "trainer.max_epochs": "epochs",
};
const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

function axis(label, more = {}) {
  const style = getComputedStyle(document.documentElement);
  const grid = style.getPropertyValue("--grid"), line = style.getPropertyValue("--line");
  return {
    title: { text: plain(label), standoff: 8 }, gridcolor: grid, linecolor: line, zeroline: false, automargin: true,
    exponentformat: "SI", ...more,
  };
}

const STEPS = [
  [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9], [1, 1.5, 2, 3, 4, 5, 6, 8], [1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1],
]; // of a decade, that have a label

/** A logarithmic axis with as many labels as `pixels` have room for, or a plain one where the values are no times apart. */
function logAxis(label, values, pixels = 300) {
  const low = Math.min(...values), high = Math.max(...values);
  if (!values.length || low <= 0 || high < 1.5 * low) return axis(label);
  const decades = [];
  for (let n = Math.floor(Math.log10(low)); n <= Math.ceil(Math.log10(high)); n++) decades.push(n);
  const labels = STEPS.map((steps) => decades.flatMap((n) => steps.map((step) => +(step * 10 ** n).toPrecision(3)))
    .filter((tick) => tick >= 0.9 * low && tick <= 1.1 * high));
  const ticks = labels.find((one) => one.length <= pixels / 40) ?? labels.at(-1);
  const margin = (high / low) ** 0.05;
  const range = [Math.log10(low / margin), Math.log10(high * margin)];
  return axis(label, { type: "log", range, tickvals: ticks, ticktext: ticks.map((tick) => number(tick)) });
}

function layout(x, y, more = {}) {
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--ink").trim(), panel = style.getPropertyValue("--panel").trim();
  return {
    font: { color: ink, family: "system-ui, DejaVu Sans, sans-serif", size: 12 }, paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 56, r: 12, t: 30, b: 44 }, xaxis: x, yaxis: y, hovermode: "closest",
    hoverlabel: { bgcolor: panel, bordercolor: ink, font: { color: ink }, align: "left" },
    showlegend: false, uirevision: view, ...more,
  };
}

function draw(node, traces, look) {
  const drawn = Plotly.react(node, traces, look, CONFIG);
  if (!node.dataset.clicks) {
    node.dataset.clicks = "1";
    node.on("plotly_click", (event) => {
      const id = event.points[0]?.customdata;
      if (id !== undefined && id !== null) openSae(id);
    });
  }
  return drawn;
}

function hover(sae, key) {
  const lines = [
    `<b>${plain(title(sae))}</b>`, plain(sae.variant) + (sae.d_sae ? `, ${number(sae.d_sae)} latents` : ""),
    `L0 ${number(metric(sae, "l0"))}` + (sae.target === null ? "" : `, wanted ${number(sae.target)}`),
    `${key === "fvu" ? "" : `${plain(DATA.metrics[key].label)} ${metricText(sae, key)}<br>`}FVU ${metricText(sae, "fvu")}`,
    `lr ${lrText(sae)}`, plain(sae.state),
  ];
  return lines.join("<br>");
}

/** Marks of SAEs: colour and shape tell the variant, hollow ones did not finish; folders compared by size. */
function marks(saes, x, y, text, more = {}) {
  return {
    type: "scatter", mode: "markers", x: saes.map(x), y: saes.map(y), text: saes.map(text), customdata: saes.map((sae) => sae.id),
    hovertemplate: "%{text}<extra></extra>", ...more,
  };
}

function drawFront(shown, key) {
  const placed = shown.filter((sae) => metric(sae, "l0") > 0 && metric(sae, key) !== null);
  const logY = placed.every((sae) => metric(sae, key) > 0) && DATA.metrics[key].better === "low";
  const byId = new Map(placed.map((sae) => [sae.id, sae]));
  const traces = [];
  const x = (sae) => metric(sae, "l0"), y = (sae) => metric(sae, key);
  const line = (ids, look) => {
    const own = ids.map((id) => byId.get(id)).filter(Boolean);
    traces.push({ type: "scatter", mode: "lines", x: own.map(x), y: own.map(y), line: look, hoverinfo: "skip" });
  };
  const wide = getComputedStyle(document.documentElement).getPropertyValue("--wide").trim();
  DATA.fronts[key].forEach((front, source) => {
    if (COMPARED || VARIANTS.length > 1) line(front.all, { color: wide, width: 9, dash: DASHES[source] });
  });
  DATA.fronts[key].forEach((front, source) => {
    for (const variant of VARIANTS) {
      const own = placed.filter((sae) => sae.source === source && sae.variant === variant);
      const done = own.filter((sae) => sae.state === "finished"), others = own.filter((sae) => sae.state !== "finished");
      line(front.variants[variant] ?? [], { color: colour(variant), width: 1.5, dash: DASHES[source] });
      const size = placed.length > 200 ? 7 : 10;
      const look = (hollow) => ({ color: colour(variant), symbol: shape(variant, hollow), size: source ? size + 3 : size,
        opacity: hollow ? 0.75 : 0.85, line: { width: hollow ? 1.5 : 0.5, color: hollow ? colour(variant) : "rgba(128,128,128,.6)" } });
      const text = (sae) => hover(sae, key);
      if (done.length) traces.push(marks(done, x, y, text, { marker: look(source > 0) }));
      if (others.length) traces.push(marks(others, x, y, text, { marker: { ...look(true), size: size - 2, opacity: 0.5 } }));
    }
  });
  const label = DATA.metrics[key].label;
  const yAxis = logY ? logAxis(label, placed.map(y), 400) : axis(label);
  const left = shown.length - placed.length;
  $("front-rule").textContent =
    `${DATA.metrics[key].better === "low" ? "Left and down" : "Left and up"} is better. A line joins the finished SAEs that are at least ` +
    `${100 * DATA.tie} % better than every sparser one of their variant${VARIANTS.length > 1 ? "; the wide grey line, of all" : ""}. ` +
    (COMPARED ? `${DATA.sources[1].name} has dashed lines and hollow marks. ` : "") +
    (placed.some((sae) => sae.state !== "finished") ? "Small hollow marks did not finish. " : "") +
    (left ? `${left} of ${shown.length} have no L0 above 0 or no such number, and are in the table only. ` : "") + "Click a mark to open its SAE.";
  return draw($("front-chart"), traces, layout(logAxis(DATA.metrics.l0.label, placed.map(x), $("front-chart").clientWidth), yAxis));
}

/** How the lines of single SAEs look: colour of the variant, dashes apart within it. */
function lineLook(saes) {
  const seen = {};
  return new Map(saes.map((sae) => {
    const nth = (seen[sae.variant] = (seen[sae.variant] ?? -1) + 1);
    return [sae.id, { color: colour(sae.variant), dash: DASHES[nth % DASHES.length], width: 1.6 }];
  }));
}

function drawCurves(node, saes, key, label) {
  const looks = lineLook(saes);
  const values = saes.flatMap((sae) => sae.curve[key]).filter((value) => value !== null);
  const traces = saes.map((sae) => ({
    type: "scatter", mode: sae.curve.step.length > 1 ? "lines" : "markers", x: sae.curve.step, y: sae.curve[key], name: plain(title(sae)),
    line: looks.get(sae.id), customdata: sae.curve.step.map(() => sae.id), hovertemplate: "%{fullData.name}<br>step %{x}: %{y:.4g}<extra></extra>",
  }));
  const y = values.every((value) => value > 0) ? logAxis(label, values) : axis(label);
  return draw(node, traces, layout(axis("step", { rangemode: "tozero" }), y));
}

function drawDensity(node, saes) {
  const looks = lineLook(saes);
  const traces = saes.map((sae) => {
    const { lowest, per_decade, counts } = sae.density;
    const total = counts.reduce((sum, count) => sum + count, 0) + sae.density.silent;
    const first = counts.findIndex(Boolean), last = counts.findLastIndex(Boolean);
    // With an empty bin on either side, for the line to come down.
    const bins = first < 0 ? [] : [...Array(last - first + 3).keys()].map((i) => i + first - 1);
    return {
      type: "scatter", mode: "lines", name: plain(title(sae)), line: { ...looks.get(sae.id), shape: "hvh" }, customdata: bins.map(() => sae.id),
      x: bins.map((i) => 10 ** (lowest + (i + 0.5) / per_decade)), y: bins.map((i) => (counts[i] ?? 0) / total),
      hovertemplate: `%{fullData.name}<br>fires on %{x:.2g} of tokens: %{y:.1%} of latents<br>never fired: ${percent(sae.density.silent / total)}<extra></extra>`,
    };
  });
  const x = logAxis("share of tokens on which a latent fires", traces.flatMap((trace) => trace.x), node.clientWidth / 2);
  return draw(node, traces, layout(x, axis("share of latents", { tickformat: "~%", rangemode: "tozero" })));
}

function drawSensitivity(node, panel, shownIds) {
  const points = panel.points.filter(([id]) => shownIds.has(id));
  const numeric = points.every(([, value]) => typeof value === "number");
  const values = [...new Set(points.map(([, value]) => value))].sort((a, b) => (numeric ? a - b : 0));
  const few = numeric && values.length <= 12;
  const traces = [];
  for (const variant of VARIANTS) {
    const own = points.filter(([id]) => SAES[id].variant === variant);
    if (!own.length) continue;
    traces.push(marks(own, ([, value]) => value, ([, , ratio]) => ratio, ([id, value, ratio]) =>
      `<b>${plain(title(SAES[id]))}</b><br>${plain(panel.setting)} ${plain(value)}<br>FVU ${number(ratio, 3)} × that of its like`,
      { marker: { color: colour(variant), symbol: shape(variant), size: 7, opacity: 0.6 },
        customdata: own.map(([id]) => id) }));
    if (numeric && !few) continue;
    const middles = values.map((value) => [value, middle(own.filter(([, other]) => other === value).map(([, , ratio]) => ratio))]);
    const known = middles.filter(([, ratio]) => ratio !== null);
    traces.push({ type: "scatter", mode: numeric ? "lines" : "markers", x: known.map(([value]) => value), y: known.map(([, ratio]) => ratio),
      line: { color: colour(variant), width: 2 }, marker: { color: colour(variant), symbol: "line-ew-open", size: 22, line: { width: 3 } },
      hoverinfo: "skip" });
  }
  const label = SETTINGS[panel.setting] ?? panel.setting;
  const log = numeric && values[0] > 0 && values.at(-1) >= 4 * values[0];
  const ticks = few && values.length <= 6 ? { tickvals: values, ticktext: values.map((value) => number(value)) } : {};
  const ratios = points.map(([, , ratio]) => ratio);
  const y = Math.max(...ratios) > 4 * Math.min(...ratios) ? logAxis("FVU, relative", ratios) : axis("FVU, relative");
  const x = !numeric ? axis(label, { type: "category" }) : log ? { ...logAxis(label, values), ...ticks } : axis(label, ticks);
  const one = { type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { width: 1, dash: "dot", color: x.linecolor } };
  return draw(node, traces, layout(x, y, { shapes: [one] }));
}

function middle(values) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

function drawClusters(saes) {
  const traces = VARIANTS.map((variant) => saes.filter((sae) => sae.variant === variant)).filter((own) => own.length).map((own) =>
    marks(own, (sae) => metric(sae, "clusters"), (sae) => metric(sae, "silhouette"),
      (sae) => `<b>${plain(title(sae))}</b><br>${number(metric(sae, "clusters"))} clusters, silhouette ${number(metric(sae, "silhouette"), 3)}`,
      { marker: { color: colour(own[0].variant), symbol: shape(own[0].variant), size: 9, opacity: 0.75 } }));
  const found = saes.map((sae) => metric(sae, "clusters"));
  const whole = Math.max(...found) - Math.min(...found) < 15 ? { dtick: 1 } : {};
  return draw($("clusters-chart"), traces, layout(axis("clusters", whole), axis("silhouette (−1 to 1)")));
}
