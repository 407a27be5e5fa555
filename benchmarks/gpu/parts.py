"""One part of the GPU check in a process of its own: `python -m benchmarks.gpu.parts PART …`, which gpu_check.py starts."""

import argparse
import logging
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu import commands, exactness, kernels, operations, peers, profiled_step, steps, stream
from benchmarks.gpu.results import Results
from benchmarks.gpu.training import Bench

PARTS: dict[str, Callable[[Bench], None]] = {
    "cli": commands.run,
    "kernels": kernels.run,
    "exact": exactness.run,
    "exact_deterministic": partial(exactness.run, deterministic=True),
    "exact_sparse": exactness.run,
    "exact_sparse_deterministic": partial(exactness.run, deterministic=True),
    "dense": steps.dense,
    "sparse": steps.sparse,
    "profile": profiled_step.run,
    "profile_sparse": profiled_step.run,
    "operations": operations.run,
    "peers": peers.run,
    "stream": stream.run,
}


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="a folder for results and scratch files")
    parser.add_argument("--rehearse", action="store_true")
    given = parser.parse_args(words)
    # It is the numbers that are looked at here.
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if not given.rehearse and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here; --rehearse runs on the CPU")
    results = Results(given.work / f"{given.part}.json", given.seconds - 2)
    scratch = given.work / given.part
    scratch.mkdir()
    PARTS[given.part](Bench(results, "cpu" if given.rehearse else "cuda", given.checkout, scratch))
    return 1 if "errors" in results.tables else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
