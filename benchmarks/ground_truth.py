"""Every variant on synthetic data whose features are known: which of them finds the features, at the same L0?

    python -m benchmarks.ground_truth [--size SIZE] [--tokens N] [--only NAME ...] [--write]

All variants train in one bank, on the same batches, for the same tokens; every one that can aims at the true L0. A table
is printed, and with --write put into docs/ground-truth.md. The exit status is 1 if a variant does not beat a random
dictionary by far (`recovery.BARS`), which is a bug and not a result.
"""

import argparse
import logging
import os
import platform
import re
import shlex
import sys
import time
import warnings
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import torch

import saelight
from benchmarks.pages import insert
from benchmarks.recovery import BARS, LOW_BARS, RANDOM, Row, controls, measure, shortcomings, table
from saelight.data.synthetic import SyntheticRows
from saelight.saes import SAEConfig

PAGE = Path(__file__).parents[1] / "docs" / "ground-truth.md"
PRUNING_ONLY = "HardConcrete, one gate per latent"
_EVERY = 20  # seconds between lines of progress


@dataclass(frozen=True)
class Size:
    """A set of data and how it is trained on."""

    data: dict[str, Any]
    """Settings of SyntheticDataModule."""
    d_sae: int
    batch_size: int
    tokens: int
    precision: str = "32-true"

    @property
    def k(self) -> int:
        """The true L0 of as many features as there are latents, the most frequent ones."""
        p = SyntheticRows(rows=1, **self.data).frequencies
        return max(1, round(p[: self.d_sae].sum()))

    def datamodule(self, tokens: int | None = None, seed: int = 0, val_rows: int = 16_384) -> saelight.SyntheticDataModule:
        return saelight.SyntheticDataModule(
            **self.data, rows=tokens or self.tokens, val_rows=val_rows, seed=seed, batch_size=self.batch_size
        )


SIZES = {
    "small": Size(
        {"d_in": 128, "n_features": 256, "mean_l0": 8.0},
        d_sae=256,
        batch_size=256,
        tokens=1_500_000,
    ),
    # The sizes of SynthSAEBench-16k (arXiv 2602.14687) as far as these rows can express it; docs/ground-truth.md has the
    # differences. Width, batch size, precision and tokens are those it recommends.
    "synthsaebench": Size(
        {
            "d_in": 768,
            "n_features": 16_384,
            "mean_l0": 34.0,
            "zipf_exponent": 0.5,
            "magnitude_mean": 4.5,
            "magnitude_std": 0.58,
        },
        d_sae=4096,
        batch_size=1024,
        tokens=200_000_000,
        precision="bf16-mixed",
    ),
}


def variants(size: Size) -> dict[str, SAEConfig]:
    """Every variant at its defaults, with the true L0 as its own."""
    k, common = size.k, {"d_sae": size.d_sae}
    target, fixed = common | {"target_l0": k}, common | {"k": k}
    nested = {
        "BatchTopK": saelight.BatchTopK(k=k),
        "TopK": saelight.TopK(k=k),
        "ReLU": saelight.ReLU(target_l0=k),
        "JumpReLU": saelight.JumpReLU(target_l0=k),
    }
    return {
        "ReLU": saelight.ReLU(**target),
        "ReLU, p annealed to 0.5": saelight.ReLU(p_end=0.5, **target),
        "Gated": saelight.Gated(**target),
        "HardConcrete": saelight.HardConcrete(encoder_scale=3.0, **target),
        PRUNING_ONLY: saelight.HardConcrete(input_dependent=False, sparsity=0.03, **common),
        "GatedHardConcrete": saelight.GatedHardConcrete(**target),
        "TopK": saelight.TopK(**fixed),
        "AbsTopK": saelight.AbsTopK(**fixed),
        "BatchTopK": saelight.BatchTopK(**fixed),
        "JumpReLU, step": saelight.JumpReLU(**target),
        "JumpReLU, tanh": saelight.JumpReLU(penalty="tanh", **target),
        "JumpReLU, target": saelight.JumpReLU(penalty="target", **target),
        **{f"Matryoshka over {name}": saelight.Matryoshka(base=base, **common) for name, base in nested.items()},
        "Matryoshka, random prefixes": saelight.Matryoshka(base=saelight.BatchTopK(k=k), random_prefixes=10, **common),
        "MatchingPursuit": saelight.MatchingPursuit(**fixed),
    }


class Clock(L.Callback):
    """Says how far training is."""

    def on_train_start(self, trainer, bank) -> None:
        self.start = self.said = time.monotonic()

    def on_train_batch_end(self, trainer, bank, *_) -> None:
        now = time.monotonic()
        if now - self.said > _EVERY:
            self.said, done = now, trainer.global_step / bank.horizon.steps
            print(
                f"{done:4.0%}  {bank.tokens_seen:,} tokens, {bank.tokens_seen / (now - self.start):,.0f}/s, "
                f"{(now - self.start) * (1 / done - 1):.0f} s to go",
                flush=True,
            )


def train(saes: dict[str, SAEConfig], data: saelight.SyntheticDataModule, precision: str, seed: int) -> saelight.SAEBank:
    """One bank of all of them."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    # Names of SAEs may not have commas or spaces.
    bank = saelight.SAEBank({f"sae-{i}": config for i, config in enumerate(saes.values())}, d_in=data.d_in, seed=seed)
    trainer = L.Trainer(
        max_epochs=1,
        accelerator="auto",
        devices=1,
        precision=precision,
        callbacks=[Clock()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning.*")
        trainer.fit(bank, datamodule=data)
    # Training leaves them where the trainer's teardown put them.
    return bank.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def benchmark(
    size: Size, tokens: int | None = None, only: list[str] | None = None, seed: int = 0, val_rows: int = 16_384
) -> tuple[dict[str, Row], list[str]]:
    """The rows by name, and in words what fell short."""
    data = size.datamodule(tokens, seed, val_rows)
    saes = {name: config for name, config in variants(size).items() if not only or name in only}
    bank = train(saes, data, size.precision, seed)
    print("trained; measuring", flush=True)
    rows = {name: measure(sae, data) for name, sae in controls(data, size.d_sae, size.k, bank.device).items()}
    short = []
    for name, sae in zip(saes, bank.saes, strict=True):
        rows[name] = measure(sae, data)
        bars = LOW_BARS if name == PRUNING_ONLY else BARS
        short += [f"{name}: {what}" for what in shortcomings(rows[name], rows[RANDOM], bars)]
    return rows, short


def machine() -> str:
    """What kind of machine this is."""
    cpu = platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        cpu = found[1] if found else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kind = f"{cores} core{'' if cores == 1 else 's'} of {cpu}"
    return f"{torch.cuda.get_device_name()}, {kind}" if torch.cuda.is_available() else kind


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--tokens", type=int, help="train on fewer or more than the size's own")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these variants alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.parent.name}/{PAGE.name}")
    arguments = sys.argv[1:] if arguments is None else arguments
    given = parser.parse_args(arguments)
    size, start = SIZES[given.size], time.monotonic()
    if unknown := set(given.only or ()) - variants(size).keys():
        parser.error(f"no variant {', '.join(sorted(unknown))}; there are: {'; '.join(variants(size))}")
    rows, short = benchmark(size, given.tokens, given.only, given.seed)
    words = shlex.join(word for word in arguments if word != "--write") or f"--size {given.size}"
    print(
        text := "\n".join(
            [
                f"`python -m benchmarks.ground_truth {words}`: {given.tokens or size.tokens:,} tokens, seed {given.seed}; "
                f"{(time.monotonic() - start) / 60:.0f} minutes on {machine()}; {date.today()}, "
                f"saelight {version('saelight')}, torch {torch.__version__}, lightning {L.__version__}.",
                "",
                table(rows),
            ]
        )
    )
    if given.write:
        PAGE.write_text(insert(PAGE.read_text(), given.size, text))
    for line in short:
        print("does not beat a random dictionary by far:", line, file=sys.stderr)
    return int(bool(short))


if __name__ == "__main__":
    sys.exit(main())
