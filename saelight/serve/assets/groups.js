// Above the report: what trains now and where, each group's log, what has just happened, and the job's buttons.

let following = null; // the group whose log is open: {of, group, next}
let job = null;

function makeGroups() {
  document.querySelector("header").append(
    element("nav", {}, element("a", { href: "/", textContent: "All runs" }), " · ", element("span", { id: "live", role: "status" })),
  );
  $("notices").after(element("section", { id: "groups", "aria-labelledby": "groups-title" },
    element("h2", { id: "groups-title" }, "Now"),
    element("p", { id: "trouble", className: "notice", hidden: true }),
    element("div", { id: "job" }),
    element("div", { className: "wide", id: "groups-table" }),
    element("ul", { id: "seen", "aria-live": "polite" }),
  ));
  document.body.append(element("dialog", { id: "log", "aria-labelledby": "log-title", onclose: () => { following = null; } },
    element("div", { className: "top" }, element("h2", { id: "log-title" }),
      element("button", { type: "button", className: "plain", textContent: "Close", onclick: () => $("log").close() })),
    element("pre", { id: "log-text", tabIndex: 0 })));
  setInterval(readLog, 1500);
}

function drawGroups() {
  $("trouble").hidden = !DATA.trouble;
  $("trouble").textContent = DATA.trouble ?? "";
  const heads = [...(COMPARED ? ["from"] : []), "group", "SAEs", "device", "step", "time left", "last event", ""];
  const rows = DATA.groups.map((group) => [
    ...(COMPARED ? [DATA.sources[group.source].name] : []),
    group.group ?? "run", statesText(group), group.device ?? NONE, stepText(group), duration(group.eta), lastEvent(group), logButton(group),
  ]);
  const text = COMPARED ? [0, 1, 2, 3, 6] : [0, 1, 2, 5];
  $("groups-table").replaceChildren(table(heads, rows, text, [COMPARED ? 6 : 5]));
  $("seen").replaceChildren(...seen.slice(0, 8).map(({ at, text: said, sae }) =>
    element("li", {}, `${at} `, element("button", { type: "button", className: "link", textContent: said, onclick: () => openSae(sae.id) }))));
  show("seen", seen.length > 0);
  drawJob();
}

function statesText(group) {
  return Object.entries(group.states).map(([state, n]) => `${n} ${state}`).join(", ");
}

function stepText(group) {
  if (!group.of_steps) return group.steps ? number(group.steps) : NONE;
  const bar = element("progress", { max: group.of_steps, value: group.steps, "aria-label": "steps" });
  return element("span", { className: "steps" }, bar, ` ${number(group.steps)} / ${number(group.of_steps)}`);
}

function lastEvent(group) {
  const last = group.events.at(-1);
  if (!last) return NONE;
  const dead = last.event === "submitted" && !group.states.running && group.states.interrupted;
  const said = dead ? "its process died" : last.error ? `${last.event}: ${last.error}` : last.event;
  return [last.at, said].filter(Boolean).join(" ");
}

function logButton(group) {
  if (group.log === null) return "";
  return element("button", { type: "button", className: "link", textContent: "log", onclick: () => openLog(group) });
}

function openLog(group) {
  following = { of: KEYS[group.source], group: group.group, next: null };
  $("log-title").textContent = `${group.group}: what it says`;
  $("log-text").textContent = "";
  $("log").showModal();
  readLog();
}

async function readLog() {
  const asked = following;
  if (asked === null || document.hidden) return;
  const from = asked.next === null ? "" : `&from=${asked.next}`;
  const answer = await fetch(`/api/log?of=${encodeURIComponent(asked.of)}&group=${encodeURIComponent(asked.group)}${from}`).catch(() => null);
  if (!answer?.ok || following !== asked) return;
  const { text, next } = await answer.json();
  if (next === asked.next) return;
  asked.next = next;
  const node = $("log-text"), atEnd = node.scrollTop + node.clientHeight >= node.scrollHeight - 8;
  node.textContent = rewritten(node.textContent + text);
  if (atEnd) node.scrollTop = node.scrollHeight;
}

/** A progress bar writes over its own line. */
function rewritten(text) {
  return text.split("\n").map((line) => line.replace(/\r+$/, "").split("\r").at(-1)).slice(-2000).join("\n");
}

/** The buttons of training that was asked for over HTTP. */
async function drawJob() {
  if (DATA.job === null) return;
  const answer = await fetch(`/api/jobs/${encodeURIComponent(DATA.job)}`).catch(() => null);
  job = answer?.ok ? await answer.json() : null;
  if (job === null) return $("job").replaceChildren();
  const button = (text, action) => element("button", { type: "button", className: "plain", textContent: text, onclick: () => act(action) });
  $("job").replaceChildren(element("p", {}, `Preset ${job.preset}: ${job.state}${job.error ? `: ${job.error}` : ""} `,
    ["waiting", "running"].includes(job.state) ? button("Stop", "stop") : "",
    ["stopped", "failed"].includes(job.state) ? button("Resume", "resume") : ""),
    ...job.notes.map((note) => element("p", { className: "soft" }, note)));
  if (["waiting", "stopping"].includes(job.state)) setTimeout(drawJob, 1000);
}

async function act(action) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" };
  const answer = await fetch(`/api/jobs/${encodeURIComponent(DATA.job)}/${action}`, options).catch(() => null);
  if (answer && !answer.ok) {
    $("trouble").textContent = (await answer.json()).error;
    $("trouble").hidden = false;
  }
  drawJob();
}
