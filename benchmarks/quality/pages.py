"""The results as docs/quality.md shows them: tables and figures, between its marks."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.pages import insert
from benchmarks.quality import figure
from benchmarks.quality.grid import VARIANTS
from benchmarks.quality.runs import OURS, Result
from benchmarks.quality.store import versions
from benchmarks.quality.summary import Entry, best_peer, entries

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "quality.md"
PEERS = ("sae_lens", "dictionary_learning", "sparsify")
TARGET, DEFAULT_TARGET = 0.97, 1.03


def write(results: Sequence[Result], words: str) -> None:
    """Put what there is into the page, and the figures beside it."""
    parts = [f"`python -m benchmarks.quality {words}`".replace(" `", "`"), ""]
    for name, group in _by_rows(results):
        parts += [table(name, group), ""]
        if len({result.run.l0 for result in group}) > 1:  # else there are no fronts
            drawn = DOCS / "images" / f"quality-{name}.png"
            drawn.write_bytes(figure.png(figure.fronts(name, group)))
            parts += [f"![FVU against L0 on {name}](images/{drawn.name})", ""]
    PAGE.write_text(insert(PAGE.read_text(), "quality", "\n".join(["", *parts])))


def _by_rows(results: Iterable[Result]) -> list[tuple[str, list[Result]]]:
    """Results that can be compared: on the same rows, as many, in the same batches. Of a data set, the larger group."""
    groups = {}
    for (name, *_), group in groupby(sorted(results, key=_rows), _rows):
        groups[name] = max(groups.get(name, []), list(group), key=len)
    return list(groups.items())


def _rows(result: Result) -> tuple[str, str, int, int, int]:
    run = result.run
    return run.data, run.rows, run.d_sae, run.tokens, run.batch


def table(name: str, results: Sequence[Result]) -> str:
    """Markdown: a line for each variant and L0."""
    run = results[0].run
    libraries = sorted({r.run.library for r in results}, key=lambda library: (library != OURS, library))
    installed = {name: number for library in libraries for name, number in versions(library).items()}
    lines = [
        f"### {name}: {run.tokens:,} rows, {run.d_sae} latents, batches of {run.batch}",
        "",
        "With " + ", ".join(f"{name} {number}" for name, number in installed.items()) + ".",
        "",
        f"| variant | L0 | {' | '.join((OURS, *PEERS))} | ratio (≤ {TARGET}) | other text | never fired | "
        f"default lr (≤ {DEFAULT_TARGET}) | seconds an SAE |",
        "|---|---:|" + "---:|" * (len(PEERS) + 6),
    ]
    found = {
        (variant, l0): entries(results, variant, l0)
        for variant in VARIANTS
        for l0 in sorted({r.run.l0 for r in results if r.run.variant == variant})
    }
    lines += [_line(variant, l0, row) for (variant, l0), row in found.items()]
    return "\n".join([*lines, "", _met(list(found.values()))])


def _met(rows: Sequence[dict[str, Entry]]) -> str:
    """How many lines meet each target."""
    own = [(row[OURS], row) for row in rows if OURS in row]
    pairs = [
        (ours, row[peer], row[other]) for ours, row in own if (peer := best_peer(row)) and (other := best_peer(row, True))
    ]
    targets = {
        f"FVU at most {TARGET} of the best peer's": [ours.fvu <= TARGET * peer.fvu for ours, peer, _ in pairs],
        "the same on the other text": [ours.other_fvu <= TARGET * peer.other_fvu for ours, _, peer in pairs],
        "at most 1 % never fired": [ours.never_fired <= 0.01 for ours, _ in own],
        f"default lr within {DEFAULT_TARGET}": [
            ours.default_fvu <= DEFAULT_TARGET * ours.fvu for ours, _ in own if ours.default_fvu
        ],
    }
    counts = [f"{what}: {sum(met)} of {len(met)}" for what, met in targets.items() if met]
    return f"Targets met: {'; '.join(counts)}." if counts else ""


def _line(variant: str, l0: int, found: dict[str, Entry]) -> str:
    ours, peer, other_peer = found.get(OURS), best_peer(found), best_peer(found, other=True)
    cells = [variant, str(l0), *(_cell(found.get(name)) for name in (OURS, *PEERS))]
    ratio = other = fired = default = seconds = ""
    if ours and peer and other_peer:
        ratio = f"**{ours.fvu / found[peer].fvu:.3f}**"
        other = f"{ours.other_fvu / found[other_peer].other_fvu:.3f}"
    pair = [found[name] for name in (OURS, peer) if name in found]
    if pair:
        fired = " / ".join(f"{100 * e.never_fired:.1f} %" for e in pair)
        seconds = " / ".join(f"{e.seconds:.0f}" for e in pair)
    if ours and ours.default_fvu:
        default = f"{ours.default_fvu / ours.fvu:.3f}"
    return "| " + " | ".join([*cells, ratio, other, fired, default, seconds]) + " |"


def _cell(entry: Entry | None) -> str:
    """FVU, the seeds' spread, the rate; `≈` where the L0 was not met, `*` where the best rate is the last one tried."""
    if entry is None:
        return ""
    spread = f" ± {entry.spread:.4f}" if entry.seeds > 1 else ""
    return f"{'' if entry.exact else '≈ '}{entry.fvu:.4f}{spread} ({entry.lr:g}{'' if entry.inside else '*'})"
