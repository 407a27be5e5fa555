"""Exact numbers, bit for bit: twice the same, gone on from a checkpoint as unbroken, together as alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
from torch import Tensor

import saelight
from benchmarks.gpu.training import Bench, configs, fit
from saelight.bank import SAEBank
from saelight.saes import SAEConfig

Weights = dict[str, dict[str, Tensor]]
"""By SAE, and by tensor."""


class _Half(L.Callback):
    """Writes a checkpoint half way."""

    def __init__(self, path: str, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer: L.Trainer, bank: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def run(bench: Bench, deterministic: bool = False) -> None:
    """As it comes, or with torch's deterministic algorithms, which refuse what they have no code for."""
    d_in, d_sae, batch, k, steps = (128, 2048, 1024, 16, 16) if bench.cuda else (16, 64, 32, 4, 4)
    saes = bench.some(configs(d_sae, k, lr=1e-3, dead_after=3 * batch))
    rows = partial(saelight.SyntheticDataModule, d_in, 2 * d_in, rows=8 * batch, val_rows=0, batch_size=batch)

    def train(precision: str, saes: dict[str, SAEConfig], steps: int = steps, **settings: Any) -> Weights:
        settings |= {"precision": precision, "deterministic": deterministic or None, "logger": False}
        return _weights(fit(bench, saes, rows(), steps, **settings))

    for precision in ("32-true", "bf16-mixed") if bench.cuda else ("32-true",):
        able = dict(saes)
        for name in saes if deterministic else ():
            try:
                train(precision, {name: saes[name]}, steps=2)
            except RuntimeError as error:
                bench.results.put(f"{precision}, refused", name, str(error)[:160])
                del able[name]
        bench.results.measure(
            "bit for bit", precision, partial(_compare, bench, able, partial(train, precision), steps), needs=10
        )


def _compare(bench: Bench, saes: dict[str, SAEConfig], train: Callable[..., Weights], steps: int) -> dict[str, str]:
    """Which SAEs keep each promise."""
    half = str(bench.scratch / "half.ckpt")
    first = train(saes, root=str(bench.scratch), name="first", callbacks=[_Half(half, steps // 2)])
    row = {"finite": _which(first, lambda name: all(t.isfinite().all() for t in first[name].values()))}
    again = train(saes)
    row["twice"] = _which(first, lambda name: _same(first[name], again[name]))
    resumed = train(saes, root=str(bench.scratch), name="resumed", ckpt_path=half)
    row["resumed"] = _which(first, lambda name: _same(first[name], resumed[name]))
    alone = {name: train({name: config})[name] for name, config in saes.items() if bench.results.left > 3}
    row["alone"] = _which(alone, lambda name: _same(first[name], alone[name]))
    return row


def _weights(bank: SAEBank) -> Weights:
    states = {name: sae.state_dict() for name, sae in zip(bank.names, bank.saes, strict=True)}
    return {name: {key: t.detach().cpu().clone() for key, t in state.items()} for name, state in states.items()}


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(a[key].numpy().tobytes() == b[key].numpy().tobytes() for key in a)


def _which(names: Weights, good: Callable[[str], Any]) -> str:
    bad = [name for name in names if not good(name)]
    return f"all {len(names)}" if not bad else f"{len(names) - len(bad)} of {len(names)}, not {' '.join(bad)}"
