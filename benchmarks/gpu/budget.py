"""What a training step asks of a GPU, counted without one: launches, bytes and device reads, by variant and stage.

    python -m benchmarks.gpu.budget [--d_in 768 --d_sae 16384 --batch 4096 --k 64 --precision bf16 --dead 0]

The step is the bank's own, of one SAE, dense, between two logged ones; what Lightning adds to it is not in there.
"""

import argparse
import logging
import math
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import lightning as L
import torch

from benchmarks.gpu.counting import Counted, Counting, as_on_a_gpu
from benchmarks.gpu.training import Size, configs
from saelight.bank import SAEBank
from saelight.bank.fit_length import FitLength
from saelight.bank.optimizer import adamw
from saelight.saes import SAEConfig
from saelight.schedules import Horizon

STAGES = ("forward", "backward", "hand-over", "clip", "optimizer", "constraint")
DTYPES = {"bf16": torch.bfloat16, "fp32": None}
_STEPS = 10_000
_STEP = 100  # neither the first, which is logged, nor one of a multiple of log_every_n_steps


def without_auxk(config: SAEConfig) -> SAEConfig:
    """The same SAE without the term on dead latents, where it has one that can be left out."""
    if "base" in vars(config):
        return replace(config, base=without_auxk(vars(config)["base"]))
    revives = hasattr(config, "k_aux")
    return replace(config, **{"aux_coefficient": 0.0}) if revives else config


def count(config: SAEConfig, size: Size, precision: str = "bf16", dead: int = 0) -> Counted:
    """The counts of one step.

    Args:
        dead: How many latents are dead, where AuxK asks for them.
    """
    with as_on_a_gpu(DTYPES[precision]):
        with torch.device("meta"):
            bank = SAEBank({"sae": config}, d_in=size.d_in)
        x_BD = torch.empty(size.batch, size.d_in, device="meta")
        bank.trainer = _trainer()
        bank.position.length = FitLength(_STEPS, math.inf, 1)
        bank._horizon = Horizon(_STEPS, _STEPS, size.batch)
        optimizer: Any = adamw([("sae", bank["sae"])], bank.horizon, bank.whitening)["optimizer"]
        _begin(optimizer)
        for _ in range(2):  # the first step makes moments
            with Counting(found=dead) as counting:
                _step(bank, optimizer, x_BD, counting)
    return counting.counted


def _step(bank: SAEBank, optimizer: torch.optim.Optimizer, x_BD: torch.Tensor, counting: Counting) -> None:
    def closure() -> torch.Tensor:
        counting.stage = "forward"
        optimizer.zero_grad()
        loss = bank.training_step(x_BD, 0)
        counting.stage = "hand-over"
        loss.backward()
        counting.stage = "clip"
        bank.configure_gradient_clipping(optimizer)
        counting.stage = "optimizer"
        return loss

    def stepped(*_: Any) -> None:
        counting.stage = "constraint"

    handle = optimizer.register_step_post_hook(stepped)
    bank.optimizer_step(0, 0, optimizer, closure)
    handle.remove()


def _trainer() -> L.Trainer:
    off: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    trainer = L.Trainer(accelerator="cpu", devices=1, max_steps=_STEPS, **off)
    trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = _STEP
    return trainer


def _begin(optimizer: torch.optim.Optimizer) -> None:
    """Give the fused AdamW its state: on meta tensors it refuses to make it."""
    for group in optimizer.param_groups:
        if group["width_dim"] is None:
            for p in group["params"]:
                moments = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[p] = {"step": torch.zeros((), device=p.device), **moments}


def table(rows: Iterable[tuple[str, Counted]]) -> str:
    """Markdown: launches and megabytes by stage, and the sums."""
    lines = [
        "| variant | launches | GB | reads | " + " | ".join(STAGES) + " |",
        "|---|---:|---:|---:|" + "---:|" * len(STAGES),
    ]
    for name, counted in rows:
        total = counted.total
        stages = (f"{counted.stages[stage].launches}, {counted.stages[stage].bytes / 1e6:.0f}" for stage in STAGES)
        lines.append(f"| {name} | {total.launches} | {total.bytes / 1e9:.2f} | {total.reads} | {' | '.join(stages)} |")
    return "\n".join(lines)


def main() -> None:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in Size()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--precision", choices=list(DTYPES), default="bf16")
    parser.add_argument("--dead", type=int, help="count AuxK too, with so many dead latents")
    parser.add_argument("--variant", help="one alone, with its operators and its reads by line")
    parser.add_argument("--optimizer", choices=["latent_adamw", "adamw"], default="latent_adamw")
    given = parser.parse_args()
    size = Size(given.d_in, given.d_sae, given.batch, given.k)
    saes = configs(size.d_sae, size.k, optimizer=given.optimizer)
    if given.dead is None:
        saes = {name: without_auxk(config) for name, config in saes.items()}
    chosen = saes if given.variant is None else {given.variant: saes[given.variant]}
    rows = [(name, count(config, size, given.precision, given.dead or 0)) for name, config in chosen.items()]
    print(table(rows))
    if given.variant is not None:
        counted = rows[0][1]
        for name, of in sorted(counted.operators.items(), key=lambda item: -item[1].bytes):
            print(f"{of.launches:6d} {of.bytes / 1e6:9.1f} MB  {name}")
        for line, n in counted.reads.items():
            print(f"{n:6d} reads  {line}")


if __name__ == "__main__":
    main()
