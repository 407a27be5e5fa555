"""The training step of each variant beside every peer's, in SAE-tokens per second.

    python -m benchmarks.speed [--quick] [--size 384x3072 ...] [--threads 1 2] [--saes 9] [--rounds 3] [--only VARIANT ...]
                               [--results FILE] [--write]

`make bench` runs it in an environment with the peers (benchmarks/peers/requirements.txt). Each library makes its own whole
training step on shared batches of 2048 rows, at float32 and at its fastest setting (bfloat16 autocast, medium float32
products), turn by turn in one process. Results are added to FILE; --write puts what FILE holds into docs/performance.md.
"""

import argparse
import json
import logging
import sys
import warnings
from pathlib import Path

import torch

from benchmarks.speed import ours, table
from benchmarks.speed.measure import Times, activations, interleaved, product_seconds
from benchmarks.speed.naive import NaiveLoop
from saelight.ops.allocator import keep_freed_memory

BATCH, K = 2048, 32
ALONE = 3  # SAEs of a library that shares nothing among them but the batch: as fast each as nine, in a third of the time
SHARE = 0.015  # of the latents active, where the variant learns it
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ROWS = {
    "topk": ("topk", None),
    "batch_topk": ("batch_topk", None),
    "relu": ("relu", SHARE),
    "relu, dense phase": ("relu", None),
    "jump_relu": ("jump_relu", SHARE),
    "gated": ("gated", SHARE),
    "matryoshka": ("matryoshka", None),
    "hard_concrete": ("hard_concrete", None),
}
"""What is measured: the variant, and the share of active latents it is brought to."""


def steps(row: str, saes: int, d_in: int, d_sae: int, sample_BD: torch.Tensor):
    """Every library's step for one row, by "library precision": the number of SAEs it trains, and the step."""
    from benchmarks.peers import peers

    variant, share = ROWS[row]
    made, alone = {}, min(saes, ALONE)
    for precision, dtype in DTYPES.items():
        made[f"saelight {precision}"] = (saes, ours.bank(variant, saes, d_in, d_sae, K, sample_BD, share, dtype))
        if variant == "hard_concrete":
            made[f"naive loop {precision}"] = (alone, NaiveLoop(alone, d_in, d_sae, dtype))
    for peer in peers():
        if peer.variant.removesuffix("_sparse") == variant:
            group = [peer.build(d_in, d_sae, K, seed) for seed in range(alone)]
            if share is not None:
                for training in group:
                    training.gate.close(sample_BD, share)
            sparse = " sparse" * peer.variant.endswith("_sparse")
            name = f"{peer.library}{sparse} {peer.precision}"
            made[name] = (alone, lambda x_BD, group=group: [step(x_BD) for step in group])
    return made


def measure(row: str, saes: int, d_in: int, d_sae: int, rounds: int) -> dict[str, Times]:
    batches = [activations(BATCH, d_in, seed) for seed in range(3)]
    return interleaved(steps(row, saes, d_in, d_sae, batches[0]), batches, rounds)


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three SAEs, two rounds, one thread, the small size: 5 minutes")
    parser.add_argument("--size", nargs="+", default=["384x3072", "512x8192"], metavar="D_INxD_SAE")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--saes", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="VARIANT")
    parser.add_argument("--results", type=Path, default=Path("build/speed.json"))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args(words)
    if given.quick:
        given.size, given.threads, given.saes, given.rounds = ["384x3072"], [1], 3, 2
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    keep_freed_memory()  # for all: the peers gain as well
    results = json.loads(given.results.read_text()) if given.results.exists() else {}
    for size in given.size:
        d_in, d_sae = map(int, size.split("x"))
        for threads in given.threads:
            torch.set_num_threads(threads)
            for row in given.only:
                times = measure(row, given.saes, d_in, d_sae, given.rounds)
                floor = {name: BATCH / product_seconds(BATCH, d_in, d_sae, dtype) / 1e3 for name, dtype in DTYPES.items()}
                entry = {"floor": floor, "saes": given.saes, "rounds": given.rounds}
                entry["rates"] = {name: [t.rate, *t.spread] for name, t in times.items()}
                results.setdefault(f"{size}/{threads}", {})[row] = entry
                print(table.line(size, threads, row, entry), flush=True)
                given.results.parent.mkdir(parents=True, exist_ok=True)
                given.results.write_text(json.dumps(results, indent=1))
    if given.write:
        table.write(results)


if __name__ == "__main__":
    main(sys.argv[1:])
