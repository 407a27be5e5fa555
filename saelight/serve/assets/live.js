// A page that a server follows: what changed comes as Server-Sent Events, curves are asked for where they are drawn.

const KEYS = new URLSearchParams(location.search).getAll("of"); // of the folders, as the server calls them
const OF = KEYS.map((key) => `of=${encodeURIComponent(key)}`).join("&");
const EMPTY = { step: [], loss: [], l0: [], fvu: [] };
const SEEN = 30; // changes of state that are listed
const curves = new Map(); // by SAE: its curve, and how long its log was then
const seen = []; // changes of state since the page was opened, the newest first
let asking = false, pending = null;

live = { want, addTo: (dialog, sae) => dialog.append(latentsOf(sae), textFor(sae)) };

function setCurves() {
  for (const sae of SAES) sae.curve = sae.logged === null ? null : curves.get(sae.id)?.curve ?? EMPTY;
}

/** Ask for the curves of these SAEs that have grown, one request at a time. */
async function want(saes) {
  const grown = saes.filter((sae) => sae.logged !== null && curves.get(sae.id)?.logged !== sae.logged);
  if (!grown.length || asking) return;
  asking = true;
  try {
    const lengths = new Map(grown.map((sae) => [sae.id, sae.logged]));
    const answer = await fetch(`/api/curves?${OF}&${grown.map((sae) => `id=${sae.id}`).join("&")}`);
    if (!answer.ok) return;
    for (const [id, curve] of Object.entries((await answer.json()).curves)) {
      curves.set(+id, { curve: curve ?? EMPTY, logged: lengths.get(+id) });
    }
  } catch {
    return; // the server is away: it is asked again with the next change
  } finally {
    asking = false;
  }
  setCurves();
  stale.add($("curves-charts"));
  refresh();
  if ($("sae").open) drawDialog(openedSae());
}

function openedSae() {
  return SAES[+location.hash.slice("#sae-".length)];
}

/** What a message says, into what the page knows. */
function merge(data, change) {
  const saes = data.saes.slice(0, change.n);
  for (const [i, sae] of Object.entries(change.saes)) saes[+i] = sae;
  return { ...data, ...change.head, saes };
}

function noteStates(before) {
  const at = new Date().toLocaleTimeString();
  SAES.forEach((sae, i) => {
    const old = before[i];
    if (old && old.names[0] === sae.names[0] && old.state !== sae.state) seen.unshift({ at, text: `${title(sae)}: ${stateText(sae)}`, sae });
  });
  seen.length = Math.min(seen.length, SEEN);
}

/** Draw what has changed; at most once a frame, and not while nobody looks. */
function apply() {
  if (pending === null || document.hidden) return;
  const before = SAES, focused = document.activeElement?.closest?.("#saes-table tr")?.dataset.id;
  const same = pending.saes.every((sae, i) => !before[i] || before[i].names[0] === sae.names[0] && before[i].group === sae.group);
  if (!same) curves.clear();
  take(pending);
  pending = null;
  setCurves();
  noteStates(before);
  drawAll();
  drawGroups();
  if (focused !== undefined) document.querySelector(`#saes-table tr[data-id="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  if ($("sae").open && openedSae()) refreshDialog(openedSae());
  document.documentElement.dataset.version = DATA.id;
}

function refreshDialog(sae) {
  $("sae-title").textContent = title(sae);
  $("sae-state").textContent = stateText(sae);
  $("sae-metrics").replaceChildren(pairs(metricPairs(sae)));
  $("sae-training").replaceChildren(pairs(trainingPairs(sae)));
  drawDialog(sae);
}

function follow() {
  const source = new EventSource(`/api/events?${OF}&after=${encodeURIComponent(DATA.id)}`);
  source.onopen = () => tell("follows training", true);
  source.onerror = () => tell("the server does not answer: trying again", false);
  source.onmessage = (event) => {
    const change = JSON.parse(event.data);
    pending = { ...merge(pending ?? DATA, change), id: change.id };
    requestAnimationFrame(apply);
  };
}

function tell(text, well) {
  $("live").textContent = `${well ? "●" : "○"} ${text}`;
  $("live").className = well ? "going" : "lost";
}

document.addEventListener("visibilitychange", apply);
addEventListener("DOMContentLoaded", () => {
  makeGroups();
  makeSearch();
  drawGroups();
  follow();
});
setCurves();
