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

/** Tokens, the darker the stronger; a number goes with each by the pointer. */
function tokens(list, most) {
  return element("span", { className: "tokens" }, ...list.flatMap(({ text, activation, after_gap: gap }) => {
    const share = most > 0 ? Math.min(1, Math.abs(activation) / most) : 0;
    const made = element("span", { textContent: visible(text), title: number(activation) });
    made.style.setProperty("--share", `${Math.round(70 * share)}%`);
    if (share > 0.99) made.className = "strongest";
    return gap ? ["…", made] : [made];
  }));
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
    number(one.maximum, 3), one.tokens.map((text) => text.trim()).join(", ") || NONE, tokens(one.context, one.maximum)]);
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
  const related = (list) => list.flatMap((one, i) => [i ? ", " : "", linked(one), ` (${number(one.cosine, 2)})`]);
  const words = (list) => list.map((one) => one.text.trim()).join(", ");
  const known = [["fires on", `${percent(latent.density)} of tokens`], ["mean where it fires", number(latent.mean, 3)], ["maximum", number(latent.maximum, 3)]];
  const lines = [["most frequent tokens", latent.tokens.map((one) => `${one.text.trim()} (${number(one.count)})`).join(", ")],
    ["promotes", words(latent.promoted)], ["suppresses", words(latent.suppressed)]].filter(([, text]) => text);
  const near = [["nearest decoder rows", latent.near], ["in other SAEs", latent.across], ["fires together with", latent.together]]
    .filter(([, list]) => list.length);
  const contexts = (list) => element("ul", { className: "contexts" }, ...list.map((one) =>
    element("li", {}, element("b", {}, `${number(one.value, 3)} `), tokens(one.tokens.map(asToken), latent.maximum))));
  return [element("h2", {}, `Latent ${latent.index}`), pairs(known),
    ...lines.map(([label, text]) => element("p", {}, element("span", { className: "soft" }, `${label}: `), text)),
    ...near.map(([label, list]) => element("p", {}, element("span", { className: "soft" }, `${label}: `), ...related(list))),
    element("p", { className: "soft" }, "Where it is strongest:"), contexts(latent.top),
    ...latent.samples.flatMap(({ low, high, contexts: some }) => [
      element("p", { className: "soft" }, `From ${number(low, 3)} to ${number(high, 3)}:`), contexts(some)])];
}

/** Python's named tuples are JSON's lists. */
function asToken(token) {
  const [, text, activation, gap] = token;
  return { text, activation, after_gap: gap };
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
    const list = answer.tokens.map((token, i) => ({ text: token.text, activation: one.values[i], after_gap: false }));
    shown.replaceChildren(element("p", { className: "soft" }, `Latent ${one.latent}:`), element("p", { className: "tried" }, tokens(list, one.maximum)));
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

function strongest(values) {
  return values.reduce((best, value, i) => (Math.abs(value) > Math.abs(values[best]) ? i : best), 0);
}
