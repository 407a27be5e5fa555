"""Training on the device at hand, for the GPU check: its sizes, its data, and steps that are timed within a whole fit.

Shapes: B batch, D d_in, F d_sae.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import lightning as L
import torch
from torch import Tensor

import saelight
from benchmarks.gpu.results import Results
from benchmarks.speed.measure import activations
from benchmarks.speed.ours import close
from saelight import saes as variants
from saelight.bank import SAEBank
from saelight.run.memory import gpu_bytes
from saelight.saes import SAEConfig

T = TypeVar("T")
PRECISION = "bf16-mixed"
SHARE = 0.015
"""Of the latents, how many are active for a row: what training ends near, for variants that learn it."""


class Size(NamedTuple):
    d_in: int = 768
    d_sae: int = 16384
    batch: int = 4096
    k: int = 64


@dataclass(frozen=True)
class Bench:
    """Where a part runs, and where its results go."""

    results: Results
    device: str
    """`cuda`, or `cpu` in a rehearsal."""
    checkout: Path
    scratch: Path
    """A folder of its own."""

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def size(self) -> Size:
        """What training at scale has; small in a rehearsal."""
        return Size() if self.cuda else Size(16, 256, 32, 4)

    def some(self, items: Mapping[str, T]) -> dict[str, T]:
        """All of them; in a rehearsal one, which takes the same way as the others."""
        return dict(items) if self.cuda else dict(islice(items.items(), 1))

    def nine(self, config: SAEConfig) -> dict[str, SAEConfig]:
        """Nine SAEs alike but for their seeds; in a rehearsal two."""
        return {f"sae-{i}": config for i in range(9 if self.cuda else 2)}

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.cuda:
            torch.cuda.synchronize()


def configs(d_sae: int, k: int, lr: float = 1e-6, **more: Any) -> dict[str, SAEConfig]:
    """Every variant by name. A small lr keeps the sparsity as it was set while steps are timed."""
    common: dict[str, Any] = {"d_sae": d_sae, "lr": lr, **more}
    return {
        "topk": variants.TopK(k=k, **common),
        "batch_topk": variants.BatchTopK(k=k, **common),
        "matryoshka": variants.Matryoshka(base=variants.BatchTopK(k=k), **common),
        "relu": variants.ReLU(**common),
        "jump_relu": variants.JumpReLU(**common),
        "gated": variants.Gated(**common),
        "abs_topk": variants.AbsTopK(k=k, **common),
        "hard_concrete": variants.HardConcrete(**common),
        "gated_hard_concrete": variants.GatedHardConcrete(**common),
        "matching_pursuit": variants.MatchingPursuit(k=k, **common),
    }


def set_sparsity(sae: variants.SAE, x_BD: Tensor) -> None:
    """Bring an SAE that learns its sparsity to `SHARE` of active latents."""
    if isinstance(sae.config, variants.ReLU | variants.JumpReLU | variants.Gated):
        close(sae, x_BD, SHARE)


class Batches(L.LightningDataModule):
    """Four batches, over and over.

    Args:
        where: They lie on the `device`, or in `pinned` or `pageable` memory of the host.
    """

    def __init__(self, bench: Bench, d_in: int, batch: int, where: str = "device") -> None:
        super().__init__()
        self.d_in, self.batch_size = d_in, batch
        x_BD = _rows(4 * batch, d_in)
        self._sample = x_BD[:8192]
        if where == "device":
            x_BD = x_BD.to(bench.device)
        elif where == "pinned" and bench.cuda:
            x_BD = x_BD.pin_memory()
        self._batches = x_BD.split(batch)

    def init_sample(self, n: int) -> Tensor:
        return self._sample[:n]

    def train_dataloader(self) -> "Repeated":
        return Repeated(self._batches)


class Repeated:
    """A loader that has no end to speak of."""

    def __init__(self, batches: Sequence[Tensor]) -> None:
        self.batches, self.batch_size = batches, len(batches[0])

    def __len__(self) -> int:
        return 1 << 20

    def __iter__(self) -> Iterator[Tensor]:
        return (self.batches[i % len(self.batches)] for i in range(len(self)))


@cache
def _rows(n: int, d_in: int) -> Tensor:
    return activations(n, d_in, seed=0)


class Clock(L.Callback):
    """Times some steps after a warm-up, on the device and on the host, and notes the peak of the device's memory."""

    def __init__(self, bench: Bench, warm_up: int, steps: int) -> None:
        self.bench, self.warm_up, self.steps = bench, warm_up, steps
        self.row: dict[str, Any] = {}

    def on_train_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        if self.bench.cuda:
            torch.cuda.reset_peak_memory_stats()

    def on_train_batch_start(self, trainer: L.Trainer, bank: L.LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.warm_up:
            self.bench.wait()
            self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, bank: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx != self.warm_up + self.steps - 1:
            return
        host = time.perf_counter()
        self.bench.wait()
        ms, host_ms = ((end - self._start) / self.steps * 1e3 for end in (time.perf_counter(), host))
        tokens = len(bank.saes) * trainer.datamodule.batch_size
        # Where the host's time is near all of it, launches or reads of the device set the pace.
        self.row = {"ms": ms, "host_ms": host_ms, "SAE_tokens_per_s": round(tokens / ms * 1e3)}
        if self.bench.cuda:
            self.row["peak_MB"] = round(torch.cuda.max_memory_allocated() / 1e6)


class AtStart(L.Callback):
    """Calls something with each SAE and a sample, once the SAEs are initialised."""

    def __init__(self, call: Callable[[variants.SAE, Tensor], None]) -> None:
        self.call = call

    def on_train_start(self, trainer: Any, bank: Any) -> None:
        x_BD = trainer.datamodule.init_sample(4096).to(bank.device)
        for sae in bank.saes:
            self.call(sae, x_BD)


def fit(bench: Bench, saes: dict[str, SAEConfig], data: L.LightningDataModule, steps: int, **settings: Any) -> SAEBank:
    """Train for so many steps by saelight's own Trainer; without a folder of its own, unless `folder` names one."""
    ckpt_path = settings.pop("ckpt_path", None)
    defaults = {
        "root": None,
        "max_steps": steps,
        "accelerator": "gpu" if bench.cuda else "cpu",
        "devices": 1,
        "precision": PRECISION,
        "enable_progress_bar": False,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 50,
    }
    bank = SAEBank(saes, d_in=data.d_in)
    saelight.Trainer(**defaults | settings).fit(bank, datamodule=data, ckpt_path=ckpt_path)
    return bank


def timed(
    bench: Bench,
    saes: dict[str, SAEConfig],
    *,
    size: Size | None = None,
    where: str = "device",
    data: L.LightningDataModule | None = None,
    steps: int = 20,
    callbacks: Sequence[L.Callback] = (),
    **settings: Any,
) -> dict[str, Any]:
    """Milliseconds of a step of these SAEs together, the host's share in them, and memory beside what a sweep predicts."""
    d_in, _, batch, _ = size or bench.size
    warm_up, steps = (6, steps) if bench.cuda else (1, 2)
    clock = Clock(bench, warm_up, steps)
    data = data or Batches(bench, d_in, batch, where)
    bank = fit(bench, saes, data, warm_up + steps, callbacks=[AtStart(set_sparsity), clock, *callbacks], **settings)
    precision = settings.get("precision", PRECISION)
    sizes = [(sae.config, sum(p.numel() for p in sae.parameters()), sae.d_sae, batch) for sae in bank.saes]
    held, in_turn = zip(*(gpu_bytes(*size, precision) for size in sizes), strict=True)
    # What tensors take: beside the data's windows, CUDA's context and what the allocator loses.
    row = clock.row | {"predicted_MB": round((sum(held) + max(in_turn)) / 1e6)}
    del bank
    if bench.cuda:
        torch.cuda.empty_cache()
    return row


def mean_ms(bench: Bench, call: Callable[[], Any], times: int = 20) -> dict[str, float]:
    """Mean milliseconds of a call, and how much of them the host was busy with it."""
    for _ in range(3):
        call()
    bench.wait()
    times = times if bench.cuda else 2
    start = time.perf_counter()
    for _ in range(times):
        call()
    host = time.perf_counter()
    bench.wait()
    return {"ms": (time.perf_counter() - start) / times * 1e3, "host_ms": (host - start) / times * 1e3}
