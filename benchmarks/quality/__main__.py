"""How well each library's SAEs reconstruct, at equal rows, equal tuning and equal measured L0.

    python -m benchmarks.quality [--data minilm smollm2] [--library NAME ...] [--variant NAME ...] [--l0 32 16 64]
                                 [--tokens N] [--batch N] [--lrs 3] [--tries 3] [--seeds 2] [--text GLOB]
                                 [--budget MINUTES] [--results FOLDER] [--write] [--quick]

`make quality` runs it in an environment with the peers. What is in FOLDER (build/quality) is not trained again: stop it at
any time, or after --budget minutes, and run it again to go on. --write puts what FOLDER holds into docs/quality.md.
"""

import argparse
import logging
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.quality import ours, pages, theirs
from benchmarks.quality.data import Data
from benchmarks.quality.grid import STARTS, VARIANTS, Grid, following
from benchmarks.quality.prepare import SOURCES, prepare
from benchmarks.quality.runs import OURS, Result, Run
from benchmarks.quality.store import Store, versions
from saelight import UserError
from saelight.ops.allocator import keep_freed_memory

ROOM = 50_000
"""Rows harvested beyond what is asked for: documents are held out whole, and some are long."""
TOGETHER = 9
"""SAEs in one of saelight's banks, at most: a piece of work that ends within minutes."""


def bases(data: Data, given: argparse.Namespace) -> list[Run]:
    """Library, variant and L0 of all that is compared, the first L0 first."""
    return [
        Run(data.name, data.identity, library, variant, data.d_sae, data.tokens, given.batch, l0, None, None, 0)
        for l0 in given.l0
        for variant in given.variant
        for library in given.library
        if variant in STARTS[library]
    ]


def next_runs(bases: Sequence[Run], grid: Grid, results: Sequence[Result]) -> list[Run]:
    """What is trained next: one of a peer's SAEs, or as many of ours as share a bank."""
    for base in bases:
        if not (due := following(base, grid, results)):
            continue
        if base.library != OURS:
            return due[:1]
        others = [run for other in bases if other.library == OURS for run in following(other, grid, results)]
        same = dict.fromkeys(run for run in others if run.seed == due[0].seed)
        return list(same)[:TOGETHER]
    return []


def search(data: Data, given: argparse.Namespace, store: Store, stop_at: float) -> bool:
    """Train all that is due; False where time ran out first."""
    grid, todo = Grid(given.lrs, given.extensions, given.tries, given.seeds), bases(data, given)
    while runs := next_runs(todo, grid, list(store.results.values())):
        if time.monotonic() > stop_at:
            return False
        results = ours.train(runs, data) if runs[0].library == OURS else [theirs.train(runs[0], data)]
        store.put(results)
        for result in results:
            print(line(result), flush=True)
    return True


def line(result: Result) -> str:
    """A result in a line."""
    held_out, other = result.held_out, result.out_of_distribution
    return (
        f"{time.strftime('%H:%M:%S')}  {theirs.title(result.run)}: FVU {held_out.fvu:.4f} at L0 {held_out.l0:.1f}, "
        f"other text {other.fvu:.4f} at {other.l0:.1f}, never fired {100 * result.never_fired:.1f} %, {result.seconds:.0f} s"
    )


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """The command line, with what --quick sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--library", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--variant", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--l0", nargs="+", type=int, default=[32, 16, 64])
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--lrs", type=int, default=3, help="learning rates to begin with")
    parser.add_argument("--extensions", type=int, default=5, help="rates more, at most, until the best one lies inside")
    parser.add_argument("--tries", type=int, default=3, help="weights of a penalty for a rate and an L0, at most")
    parser.add_argument("--seeds", type=int, default=2, help="at the best rate")
    parser.add_argument("--text", metavar="GLOB", help="text files to harvest from, a document each")
    parser.add_argument("--budget", type=float, default=float("inf"), metavar="MINUTES")
    parser.add_argument("--results", type=Path, default=Path("build/quality"), metavar="FOLDER")
    parser.add_argument("--write", action="store_true", help="put table and figure into docs/quality.md")
    parser.add_argument("--quick", action="store_true", help="one model, three variants, one L0, 100,000 rows: 15 minutes")
    given = parser.parse_args(words)
    given.held_out, given.measured = 500_000, 100_000
    if given.quick:
        given.data, given.variant, given.l0 = ["minilm"], ["topk", "batch_topk", "relu"], [32]
        given.tokens, given.batch, given.extensions, given.tries, given.seeds = 100_000, 512, 2, 2, 1
        given.held_out = given.measured = 20_000
    return given


def main(words: Sequence[str]) -> int:
    given = parsed(words)
    stop_at = time.monotonic() + 60 * given.budget
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    keep_freed_memory()  # for all: the peers gain as well
    try:
        if missing := [library for library in given.library if not versions(library)]:
            raise UserError(f"not installed: {', '.join(missing)}; `make quality` does it, or name others with --library")
        store, done = Store(given.results), True
        for name in given.data:
            rows, other_rows = given.tokens + given.held_out + ROOM, 11 * given.measured // 10
            paths = prepare(name, given.text, rows, other_rows, given.quick)
            data = Data(name, *paths, given.tokens, held_out_rows=given.held_out, measured_rows=given.measured)
            done = done and search(data, given, store, stop_at)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nStopped; what is in {given.results} is kept: the same command goes on.", file=sys.stderr)
        return 130
    if given.write:
        shown = [word for before, word in pairwise(["", *words]) if "--results" not in (before, word) and word != "--write"]
        pages.write(list(store.results.values()), shlex.join(shown))
    if not done:
        print(f"The time is up; {given.results} holds {len(store.results)} SAEs: the same command goes on.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
