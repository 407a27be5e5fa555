"""What `saelight fit` costs over the bare loop: the time of a training step, in one process, interleaved.

    python -m benchmarks.overhead [--rounds 5] [--steps 60] [--d_in 384] [--expansion 4] [--batch_size 1024]

The bare loop does the SAEs' own work on the same stream of batches: losses, gradients, constraints, clipping, one fused
AdamW, schedules, dead-latent counters. `fit` adds Lightning, logging to CSV and TensorBoard at the default interval,
quarantine and progress. Start, validation and export lie outside the measured steps.
"""

import logging
import statistics
import tempfile
import time
import warnings

import lightning as L
import torch
from jsonargparse import auto_cli

import saelight
from benchmarks.bare import BareLoop
from saelight.schedules import Horizon

WARM_UP = 10


def bank(d_in: int, expansion: float) -> saelight.SAEBank:
    saes = {f"relu-{s}": saelight.ReLU(expansion=expansion, sparsity=s) for s in (0.05, 0.1, 0.2)}
    saes |= {f"gated-{s}": saelight.Gated(expansion=expansion, sparsity=s) for s in (0.1, 0.2, 0.4)}
    saes |= {f"topk-{k}": saelight.TopK(expansion=expansion, k=k) for k in (16, 32, 64)}
    return saelight.SAEBank(saes, d_in=d_in)


def bare(data: saelight.SyntheticDataModule, saes: saelight.SAEBank, steps: int) -> float:
    """Seconds per step of a loop with nothing around it."""
    horizon = Horizon(steps, steps, data.batch_size)
    sample = data.init_sample()
    for sae in saes.saes:
        sae.initialise(sample)
    loop = BareLoop(list(saes.saes), horizon, whitening_DD=saes.whitening)
    for step, batch in enumerate(data.train_dataloader()):
        if step == WARM_UP:
            start = time.perf_counter()
        loop(data.on_after_batch_transfer(batch, 0))
    return (time.perf_counter() - start) / (steps - WARM_UP)


class Clock(L.Callback):
    """Takes the time from the end of the warm-up to the last step."""

    def on_train_batch_start(self, trainer, bank, batch, batch_idx):
        if trainer.global_step == WARM_UP:
            self.start = time.perf_counter()

    def on_train_batch_end(self, trainer, *_):
        self.end = time.perf_counter()


def fit(data: saelight.SyntheticDataModule, saes: saelight.SAEBank, steps: int, folder: str) -> float:
    """Seconds per step of `saelight fit` at its defaults."""
    clock = Clock()
    trainer = saelight.Trainer(max_epochs=1, accelerator="cpu", root=folder, callbacks=[clock], limit_val_batches=0)
    trainer.fit(saes, data)
    return (clock.end - clock.start) / (steps - WARM_UP)


def main(rounds: int = 5, steps: int = 60, d_in: int = 384, expansion: float = 4, batch_size: int = 1024) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    times: dict[str, list[float]] = {"bare": [], "fit": []}
    for _ in range(rounds):
        # Synthetic rows cost more to make than to read: few features, so that the stream is never waited for.
        data = saelight.SyntheticDataModule(
            d_in=d_in, n_features=d_in, rows=steps * batch_size, val_rows=0, batch_size=batch_size
        )
        times["bare"].append(bare(data, bank(d_in, expansion), steps))
        with tempfile.TemporaryDirectory() as folder:
            times["fit"].append(fit(data, bank(d_in, expansion), steps, folder))
    for name, values in times.items():
        low, middle, high = (1e3 * f(values) for f in (min, statistics.median, max))
        print(f"{name:>5}  {middle:7.1f} ms/step  ({low:.1f}-{high:.1f})")
    ratios = [f / b for f, b in zip(times["fit"], times["bare"], strict=True)]
    low, middle, high = (f(ratios) for f in (min, statistics.median, max))
    print(f"ratio  {middle:.3f}  ({low:.3f}-{high:.3f}), {torch.get_num_threads()} threads")


if __name__ == "__main__":
    auto_cli(main)
