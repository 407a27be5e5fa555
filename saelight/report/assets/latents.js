// The latents of an SAE in its dialog: a line each, and its contexts when it is opened.

/** A token's text as it can be seen, line ends and tabs too. */
function visible(text) {
  return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

/** Words of a text, `{ text, activation, gap }` each, as dark as the latent is active on them, of `most`; one in a frame. */
function activeWords(words, most, peak = strongest(words.map(({ activation }) => activation))) {
  return element("span", { className: "words" }, ...words.flatMap(({ text, activation, gap }, i) => {
    const share = most ? Math.min(1, Math.abs(activation / most)) : 0;
    const space = text.length - text.trimStart().length;
    const word = element("span", { textContent: visible(text.slice(space)) });
    if (share > 0) {
      word.className = i === peak ? "peak" : "active";
      word.style.setProperty("--active", `${Math.max(12, Math.round(100 * share))}%`);
      word.title = number(activation, 3);
    }
    const missing = gap ? [element("span", { className: "soft", textContent: "…", title: "rows are missing here" })] : [];
    return [...missing, visible(text.slice(0, space)), word];
  }));
}

function strongest(values) {
  return values.reduce((best, value, i) => (Math.abs(value) > Math.abs(values[best]) ? i : best), 0);
}

/** A context: its strongest activation, and its words; of data without texts its row. */
function contextLine(value, words, peak, row) {
  const text = words.some(({ text }) => text) ? activeWords(words, value, peak) : element("span", {}, `row ${number(row)}`);
  return element("p", { className: "context" }, element("span", { className: "value" }, number(value, 3)), text);
}

/** A context as the report holds it: activations in hundredths of the strongest, where there are any. */
function storedContext(context) {
  const words = context.t.map((text, i) => ({ text, activation: (context.v * (context.a[i] ?? 0)) / 100, gap: (context.g ?? []).includes(i) }));
  return contextLine(context.v, words, context.p, context.row);
}

/** What is known of a latent in words: those it is most often on, with counts, and the logits it moves. */
function wordFacts(tokens, promoted, suppressed) {
  return [["most often on", tokens.map(([text, count]) => `‘${visible(text)}’ ${number(count)}`).join(" ")],
    ["promotes", quotedAll(promoted)], ["suppresses", quotedAll(suppressed)]].filter(([, value]) => value);
}

/** The latents that are like it: `[title, entries]`, by a function that names one. */
function kinFacts(near, across, together, entry) {
  const listed = (list) => element("span", {}, ...list.flatMap((one, i) => [i ? ", " : "", ...[entry(one)].flat()]));
  return [["nearest", near], ["nearest in other SAEs", across], ["fires together with", together]]
    .filter(([, list]) => list.length).map(([title, list]) => [title, listed(list)]);
}

function related([sae, latent, cosine]) {
  return `${sae === null ? "" : `${sae}/`}${latent} (${number(cosine, 2)})`;
}

/** How many firings each octave has. */
function strengths(histogram) {
  return histogram.map(([low, count]) => `${number(low)}: ${number(count)}`).join(" · ");
}

function quotedAll(texts) {
  return texts.map((text) => `‘${visible(text)}’`).join(" ");
}

/** A latent, folded up; what is inside is made when it is opened. */
function latentEntry(latent) {
  const words = quotedAll(latent.tokens.slice(0, 3).map(([text]) => text));
  const summary = element("summary", {}, `${latent.i} `, element("span", { className: "soft" },
    `fires on ${percent(latent.density)}, max ${number(latent.max, 3)}${words ? `: ${words}` : ""}`));
  const entry = element("details", { className: "latent" }, summary);
  entry.addEventListener("toggle", () => {
    if (!entry.open || entry.children.length > 1) return;
    entry.append(pairs([...wordFacts(latent.tokens, latent.promoted, latent.suppressed),
      ...kinFacts(latent.near, latent.across, latent.together, related), ["firings by strength, from", strengths(latent.histogram)]]),
    ...latent.top.map(storedContext));
    if (latent.drawn.length) {
      entry.append(element("p", { className: "rule" }, "At random, one from each octave below the maximum:"), ...latent.drawn.map(storedContext));
    }
  });
  return entry;
}

/** What a search looks in: a latent's number, and the words on which it fires. */
function latentText(latent) {
  const active = [...latent.top, ...latent.drawn].flatMap((context) => context.t.filter((_, i) => context.a[i] > 0));
  return [latent.i, ...latent.tokens.map(([text]) => text), ...active].join("\n").toLowerCase();
}

function latentsPart(sae) {
  const known = sae.latents;
  if (known === null) return "";
  const head = element("h2", {}, "Latents");
  if (known.problem !== null) return element("div", {}, head, element("p", { className: "notice" }, known.problem));
  const entries = known.list.map((latent) => ({ text: latentText(latent), node: latentEntry(latent) }));
  const search = element("input", { type: "search", placeholder: "a word they fire on", "aria-label": "Search these latents" });
  const found = element("output", { role: "status" });
  const filter = () => {
    const wanted = search.value.trim().toLowerCase();
    for (const { text, node } of entries) node.hidden = !text.includes(wanted);
    found.textContent = wanted ? `${entries.filter(({ node }) => !node.hidden).length} of ${entries.length}` : "";
  };
  search.addEventListener("input", filter);
  return element("div", { id: "sae-latents" }, head,
    element("p", { className: "rule" }, `${plural(known.list.length, "latent")} of the ${number(known.alive)} that fire on any of ` +
      `${number(known.rows)} tokens (${number(known.of - known.alive)} do not), evenly spaced by how often they do.`),
    element("p", { className: "latent-search" }, search, " ", found),
    ...entries.map(({ node }) => node),
    element("pre", {}, `saelight latents show ${known.path} --search "a word"`));
}
