"""Every peer makes a few training steps on fixed random data; those whose weights do not move, or leave the finite, fail.

OMP_NUM_THREADS=1 python -m benchmarks.peers [--d_in 64] [--d_sae 256] [--batch 128] [--k 32] [--steps 3]
    [--sparse true] [--libraries '[sparsify]']
"""

import statistics
import time
import warnings

import torch
from jsonargparse import auto_cli
from torch import Tensor

from benchmarks.peers import LIBRARIES, Training, peers


def main(
    d_in: int = 64,
    d_sae: int = 256,
    batch: int = 128,
    k: int = 32,
    steps: int = 3,
    sparse: bool = False,
    libraries: list[str] = list(LIBRARIES),  # noqa: B006
) -> None:
    warnings.filterwarnings("ignore")
    x_BD = torch.randn(batch, d_in, generator=torch.Generator().manual_seed(0))
    print(f"{'library':<20} {'variant':<11} {'precision':<9} {'active at start':>15} {'ms/step':>9}")
    for peer in peers(libraries):
        training = peer.build(d_in, d_sae, k, 0)
        if sparse and training.gate:
            training.gate.close(x_BD)
        share = f"{100 * training.gate.share_active(x_BD):.1f} %" if training.gate else f"k = {k}"
        milliseconds = timed(training, x_BD, steps)
        print(f"{peer.library:<20} {peer.variant:<11} {peer.precision:<9} {share:>15} {milliseconds:9.1f}")


def timed(training: Training, x_BD: Tensor, steps: int) -> float:
    """The median of some steps in ms, after one that does what only a first step does."""
    before = {name: p.detach().clone() for name, p in training.module.named_parameters()}
    seconds = []
    for _ in range(1 + steps):
        start = time.perf_counter()
        training(x_BD)
        seconds.append(time.perf_counter() - start)
    for name, p in training.module.named_parameters():
        assert p.isfinite().all(), f"{name} is not finite"
        assert p.ndim == 1 or not p.equal(before[name]), f"{name} did not change"
    return 1e3 * statistics.median(seconds[1:])


if __name__ == "__main__":
    auto_cli(main)
