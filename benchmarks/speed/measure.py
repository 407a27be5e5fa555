"""Training steps timed side by side: all in one process, turn by turn, so that the machine's moods hit all alike.

Shapes: B batch, D d_in.
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saelight.ops.matmul import matmul

Step = Callable[[Tensor], None]


@dataclass
class Times:
    """Seconds of each measured step, over `saes` SAEs."""

    saes: int
    tokens: int
    seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Thousand SAE-tokens per second, of the median."""
        return self._rate(statistics.median(self.seconds))

    @property
    def spread(self) -> tuple[float, float]:
        """The slowest and the fastest step's rate."""
        return self._rate(max(self.seconds)), self._rate(min(self.seconds))

    def _rate(self, seconds: float) -> float:
        return self.saes * self.tokens / seconds / 1e3


def activations(rows: int, d_in: int, seed: int) -> Tensor:
    """Sparse combinations of known directions and a little noise, at the size training normalises to: (rows, d_in)."""
    g = torch.Generator().manual_seed(7)
    directions = torch.nn.functional.normalize(torch.randn(2 * d_in, d_in, generator=g), dim=1)
    g.manual_seed(seed)
    codes = torch.rand(rows, 2 * d_in, generator=g) * (torch.rand(rows, 2 * d_in, generator=g) < 0.02)
    x_BD = codes @ directions + 0.02 * torch.randn(rows, d_in, generator=g)
    return x_BD * (d_in**0.5 / x_BD.norm(dim=1).mean())


def interleaved(
    steps: dict[str, tuple[int, Step]], batches: list[Tensor], rounds: int, warm_up: int = 2
) -> dict[str, Times]:
    """Each step's times over so many rounds, after a warm-up; `steps` gives each its number of SAEs."""
    times = {name: Times(saes, len(batches[0])) for name, (saes, _) in steps.items()}
    gc.collect()
    gc.disable()
    try:
        for turn in range(-warm_up, rounds):
            x_BD = batches[turn % len(batches)]
            for name, (_, step) in steps.items():
                start = time.perf_counter()
                step(x_BD)
                if turn >= 0:
                    times[name].seconds.append(time.perf_counter() - start)
    finally:
        gc.enable()
    return times


def product_seconds(tokens: int, d_in: int, d_sae: int, dtype: torch.dtype, repeats: int = 5) -> float:
    """How long the encoder's product alone takes, the least any exact step can: a step's lower bound."""
    a, b = torch.randn(tokens, d_in, dtype=dtype), torch.randn(d_sae, d_in, dtype=dtype).T
    matmul(a, b)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        matmul(a, b)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
