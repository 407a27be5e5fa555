// The latents of an SAE in its dialog: a line each, and its contexts when it is opened.

/** A token's text as it can be seen, line ends and tabs too. */
function visible(text) {
  return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

/** A context: the strongest token in a frame, the others as dark as the latent is active on them. */
function contextLine(context) {
  const words = context.t.map((text, i) => {
    const active = context.a[i] ?? 0;
    const space = text.length - text.trimStart().length;
    const word = element("span", { textContent: visible(text.slice(space)) });
    if (active > 0) {
      word.className = i === context.p ? "peak" : "active";
      word.style.setProperty("--active", `${Math.max(12, active)}%`);
      word.title = number((context.v * active) / 100, 3);
    }
    const gap = (context.g ?? []).includes(i) ? [element("span", { className: "soft", textContent: "…", title: "rows are missing here" })] : [];
    return [...gap, visible(text.slice(0, space)), word];
  });
  const text = context.row === undefined ? words.flat() : [`row ${number(context.row)}`];
  return element("p", { className: "context" }, element("span", { className: "value" }, number(context.v, 3)), element("span", {}, ...text));
}

function related(entries) {
  return entries.map(([sae, latent, cosine]) => `${sae === null ? "" : `${sae}/`}${latent} (${number(cosine, 2)})`).join(", ");
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
    const facts = [
      ["most often on", latent.tokens.map(([text, count]) => `‘${visible(text)}’ ${number(count)}`).join(" ")],
      ["promotes", quotedAll(latent.promoted)], ["suppresses", quotedAll(latent.suppressed)],
      ["nearest", related(latent.near)], ["nearest in other SAEs", related(latent.across)], ["fires together with", related(latent.together)],
      ["firings by strength, from", latent.histogram.map(([low, count]) => `${number(low)}: ${number(count)}`).join(" · ")],
    ];
    entry.append(pairs(facts.filter(([, value]) => value)), ...latent.top.map(contextLine));
    if (latent.drawn.length) {
      entry.append(element("p", { className: "rule" }, "At random, one from each octave below the maximum:"), ...latent.drawn.map(contextLine));
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
