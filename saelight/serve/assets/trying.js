// Latents: searched over all SAEs, those of one SAE, one of them; and own texts tried on an SAE.

const SORTS = { density: "fire most often", max: "fire most strongly", similarity: "are nearest to another" };

async function asked(path, options) {
  const answer = await fetch(path, options).catch(() => null);
  if (answer === null) throw new Error("the server does not answer");
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

/** Fill a node with what a promise gives, or with why it gives nothing. */
async function fill(node, promise, draw) {
  node.replaceChildren(element("p", { className: "soft" }, "…"));
  try {
    node.replaceChildren(...[draw(await promise)].flat());
  } catch (error) {
    node.replaceChildren(element("p", { className: "notice" }, error.message));
  }
}

function latentLink(sae, latent, text = `${latent}`) {
  return element("button", { type: "button", className: "link", textContent: text, onclick: () => openLatent(sae, latent) });
}

function makeSearch() {
  const input = element("input", { type: "search", name: "latents", placeholder: "a text, as tuple" });
  const found = element("div", { id: "latents-found" });
  const form = element("form", { id: "latents-form", autocomplete: "off", "aria-label": "Search latents" },
    element("label", {}, "What they fire on", input), element("button", { type: "submit", className: "plain", textContent: "Search all SAEs" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    fill(found, asked(`/api/latents/search?${OF}&text=${encodeURIComponent(input.value)}`), drawFound);
  });
  $("saes").after(element("section", { id: "latents", "aria-labelledby": "latents-title" },
    element("h2", { id: "latents-title" }, "Latents"), form, found));
}

function drawFound({ found, searched, of, problems }) {
  const said = of === 0 ? "No latents are known here yet: `saelight latents collect` finds what they fire on."
    : `${found.length} of the best, in ${searched} of ${plural(of, "SAE")} whose latents are known.`;
  return [element("p", { className: "rule" }, said), ...problems.map((text) => element("p", { className: "soft" }, text)),
    found.length ? element("div", { className: "wide tall-table" }, latentTable(found, true)) : ""];
}

function latentTable(found, withSae) {
  const heads = [...(withSae ? ["SAE"] : []), "latent", "fires on", "maximum", "most frequent tokens", "in context"];
  const rows = found.map((one) => [...(withSae ? [link(SAES[one.id])] : []), latentLink(SAES[one.id], one.latent), percent(one.density),
    number(one.maximum, 3), one.tokens.map((text) => text.trim()).join(", ") || NONE, activeWords(one.context.map(asWord), one.maximum)]);
  const first = withSae ? 1 : 0;
  return table(heads, rows, withSae ? [0] : [], [first + 3, first + 4]);
}

function latentsOf(sae) {
  const list = element("div", { className: "wide tall-table" });
  const select = element("select", { name: "order" }, ...Object.entries(SORTS).map(([value, text]) => element("option", { value, textContent: text })));
  const load = () => fill(list, asked(`/api/latents?${OF}&id=${sae.id}&sort=${select.value}&limit=20`), ({ found }) => latentTable(found, false));
  select.addEventListener("change", load);
  return element("details", { id: "all-latents", ontoggle: (event) => event.target.open && !list.children.length && load() },
    element("summary", {}, "Its latents"), element("label", {}, "Those that", select), list, element("div", { id: "latent" }));
}

async function openLatent(sae, latent) {
  if (!$("sae").open || openedSae().id !== sae.id) {
    const opened = new Promise((resolve) => addEventListener("hashchange", resolve, { once: true }));
    openSae(sae.id);
    await opened;
  }
  $("all-latents").open = true;
  await fill($("latent"), asked(`/api/latents/${latent}?${OF}&id=${sae.id}`), (found) => drawLatent(sae, found));
  $("latent").scrollIntoView({ block: "start" });
}

function drawLatent(sae, latent) {
  const other = (name) => SAES.find((one) => one.names[0] === name && one.source === sae.source && one.group === sae.group);
  const linked = (one) => one.sae === null ? latentLink(sae, one.latent)
    : other(one.sae) ? latentLink(other(one.sae), one.latent, `${one.sae} ${one.latent}`) : `${one.sae} ${one.latent}`;
  const entry = (one) => [linked(one), ` (${number(one.cosine, 2)})`];
  const texts = (list) => list.map((one) => one.text);
  const facts = [["fires on", `${percent(latent.density)} of tokens`], ["mean where it fires", number(latent.mean, 3)], ["maximum", number(latent.maximum, 3)],
    ...wordFacts(latent.tokens.map((one) => [one.text, one.count]), texts(latent.promoted), texts(latent.suppressed)),
    ...kinFacts(latent.near, latent.across, latent.together, entry), ["firings by strength, from", strengths(latent.histogram)]];
  const contexts = (list) => list.map((one) => contextLine(one.value, one.tokens.map(namedWord), one.peak, one.row));
  return [element("div", { className: "latent" }, element("h2", {}, `Latent ${latent.index}`), pairs(facts), ...contexts(latent.top),
    ...latent.samples.flatMap(({ low, high, contexts: some }) => [
      element("p", { className: "rule" }, `At random, from ${number(low, 3)} to ${number(high, 3)}:`), ...contexts(some)]))];
}

function asWord({ text, activation, after_gap: gap }) {
  return { text, activation, gap };
}

/** Python's named tuples are JSON's lists. */
function namedWord([, text, activation, gap]) {
  return { text, activation, gap };
}

function textFor(sae) {
  const area = element("textarea", { name: "text", rows: 3, maxLength: 4000, placeholder: "A text of your own" });
  const found = element("div", { id: "text-found" });
  const form = element("form", { id: "text-form" }, element("label", {}, "Your own text", area),
    element("button", { type: "submit", className: "plain", textContent: "Try it" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const body = JSON.stringify({ of: KEYS[sae.source], id: idInFolder(sae), text: area.value });
    fill(found, asked("/api/text", { method: "POST", headers: { "Content-Type": "application/json" }, body }), (answer) => drawText(sae, answer));
  });
  return element("details", { id: "sae-text" }, element("summary", {}, "Try your own text"), form, found);
}

/** Of two folders side by side the second's SAEs are numbered on. */
function idInFolder(sae) {
  return sae.id - SAES.findIndex((one) => one.source === sae.source);
}

function drawText(sae, answer) {
  const shown = element("div", {});
  const show = (one) => {
    const list = answer.tokens.map((token, i) => ({ text: token.text, activation: one.values[i], gap: false }));
    shown.replaceChildren(element("p", { className: "soft" }, `Latent ${one.latent}:`), element("p", { className: "tried" }, activeWords(list, one.maximum)));
  };
  if (answer.latents.length) show(answer.latents[0]);
  const rows = answer.latents.map((one) => [
    element("button", { type: "button", className: "link", textContent: String(one.latent), onclick: () => show(one) }), number(one.maximum, 3),
    answer.tokens[strongest(one.values)]?.text.trim() ?? NONE, latentLink(sae, one.latent, "what it fires on")]);
  const facts = [`${plural(answer.tokens.filter((token) => !token.special).length, "token")}`, `L0 ${number(answer.l0)}`, `FVU ${number(answer.fvu)}`,
    ...(answer.cut ? ["the rest was cut off"] : [])];
  return [element("p", { className: "rule" }, facts.join(" · ")), shown,
    element("div", { className: "wide" }, table(["latent", "maximum", "strongest on", ""], rows, [2, 3], []))];
}
