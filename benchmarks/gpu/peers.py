"""One SAE's whole training step in other libraries, at the same size: what ours has to beat."""

import importlib.util
import sys
from functools import partial
from types import ModuleType
from typing import Any

import torch

from benchmarks.gpu.training import Bench, mean_ms
from benchmarks.peers import Peer, peers
from benchmarks.speed.measure import activations

LIBRARIES = ("sparsify", "sae_lens", "dictionary_learning")


def run(bench: Bench) -> None:
    """Those of the libraries that are installed; sparse where they learn it, as ours are."""
    if importlib.util.find_spec("wandb") is None:
        # SAELens imports it to log, which no step does.
        sys.modules["wandb"] = empty = ModuleType("wandb")
        empty.__spec__ = importlib.util.spec_from_loader("wandb", loader=None)
    for library in LIBRARIES:
        if importlib.util.find_spec(library) is None:
            bench.results.put("not installed", library, "pip install --no-deps -r benchmarks/peers/requirements.txt")
            continue
        for peer in peers([library]):
            name = f"{library} {peer.variant} {peer.precision}"
            bench.results.measure("one SAE's step", name, partial(_timed, bench, peer), needs=5)


def _timed(bench: Bench, peer: Peer) -> dict[str, Any]:
    d_in, d_sae, batch, k = bench.size
    x_BD = activations(batch, d_in, seed=0).to(bench.device)
    if bench.cuda:
        torch.cuda.reset_peak_memory_stats()
    training = peer.build(d_in, d_sae, k, 0, bench.device)
    if training.gate:
        training.gate.close(x_BD)
    row: dict[str, Any] = mean_ms(bench, partial(training, x_BD), times=12)
    row["SAE_tokens_per_s"] = round(batch / row["ms"] * 1e3)
    if bench.cuda:
        row["peak_MB"] = round(torch.cuda.max_memory_allocated() / 1e6)
    return row
