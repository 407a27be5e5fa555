"""What a training step holds on a GPU at its peak, counted without one, beside what a sweep predicts of it.

    python -m benchmarks.gpu.live_bytes [--d_in 768 --d_sae 16384 --batch 4096 --k 64]

Live are the tensors that operators have given out and nobody has dropped, weights, gradients and moments among them; what
an operator needs within itself, and what an allocator loses between tensors, is not counted.
"""

import argparse
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.gpu.budget import count
from benchmarks.gpu.training import Size, configs
from saelight.data.source import BATCHES_HELD
from saelight.run.memory import gpu_bytes, least_bytes
from saelight.saes import SAEConfig

DEAD = 500
"""Dead latents, where AuxK looks for them."""
PRECISIONS = {"bf16": "bf16-mixed", "fp32": "32-true"}
"""The budget's words, and a trainer's."""


class Live(TorchDispatchMode):
    """Follows the memory of meta tensors that come to be within it: `now` and `peak`, bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and t.is_meta:
                self._hold(t.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += self._sizes[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def peak(config: SAEConfig, size: Size, precision: str, dead: int = 0) -> int:
    """Bytes at the peak of a training step of one SAE."""
    with Live() as live:
        count(config, size, precision, dead)
    return live.peak


def parameters(config: SAEConfig, d_in: int) -> int:
    """Numbers in an SAE's weights."""
    with torch.device("meta"):
        return sum(p.numel() for p in config.build(d_in).parameters())


def row(config: SAEConfig, size: Size, precision: str) -> tuple[float, float]:
    """Counted bytes of a run of one SAE, and predicted ones, without what a process and its data take."""
    n = parameters(config, size.d_in)
    held, in_turn = gpu_bytes(config, n, size.d_sae, size.batch, PRECISIONS[precision])
    return peak(config, size, precision, DEAD), held + in_turn + 4 * BATCHES_HELD * size.batch * size.d_in


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in Size()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=default)
    size = Size(**vars(parser.parse_args()))
    print(
        "| variant | precision | held, GB | in turn, GB | B a latent | predicted / counted |\n|---|---|---:|---:|---:|---:|"
    )
    for precision in PRECISIONS:
        for name, config in configs(size.d_sae, size.k).items():
            counted, predicted = row(config, size, precision)
            held = least_bytes(parameters(config, size.d_in), config.optimizer)
            in_turn = counted - held
            a_latent = (in_turn - 4 * BATCHES_HELD * size.batch * size.d_in) / (size.batch * size.d_sae)
            figures = f"{held / 1e9:.2f} | {in_turn / 1e9:.2f} | {a_latent:.1f} | {predicted / counted:.2f}"
            print(f"| {name} | {PRECISIONS[precision]} | {figures} |")


if __name__ == "__main__":
    main()
