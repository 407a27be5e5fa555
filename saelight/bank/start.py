"""The start of a fit: does the Trainer suit a bank, and what SAEs take from the data before their first step.

Shapes: N sample rows, D d_in (d_out of a target).
"""

from collections.abc import Callable, Mapping

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from saelight.bank.latent_adamw import whitening_of
from saelight.bank.sae_callback import BANK_HOOKS, SAECallback
from saelight.bank.trainer_attributes import undeclared
from saelight.data.data_concerns import concerns as data_concerns
from saelight.data.norms import ordinary
from saelight.data.pairs import Pair, as_pair
from saelight.data.source import Source
from saelight.errors import UserError
from saelight.ops.allocator import keep_freed_memory
from saelight.ops.normalisation import Normalisation
from saelight.saes import SAE
from saelight.saes.trained import Trained, check_start, start_from
from saelight.schedules import Horizon

SAMPLE = 8192
"""Activations that the data-dependent start is computed from."""
_ROWS_PER_WIDTH = 8  # rows for each dimension that a covariance is taken from


def check_trainer(trainer: L.Trainer, d_in: int, d_out: int | None) -> None:
    """Raise `UserError` for a Trainer's setting or callback, or a width of its data, that does not fit a bank built for
    `d_in` and `d_out`."""
    if trainer.precision not in ("32-true", "64-true", "bf16-mixed"):
        raise UserError(f"a bank trains in bf16-mixed or 32-true, not {trainer.precision}: set trainer.precision")
    if trainer.gradient_clip_val:
        raise UserError("trainer.gradient_clip_val would clip all SAEs as one: give each SAE its own `clip` instead")
    for callback in undeclared(trainer).callbacks:
        if not isinstance(callback, SAECallback) and (lost := [hook for hook in BANK_HOOKS if hasattr(callback, hook)]):
            raise UserError(
                f"{type(callback).__name__}.{lost[0]} would never be called: derive it from saelight.SAECallback"
            )
    data = undeclared(trainer).datamodule
    for width, built in (("d_in", d_in), ("d_out", d_out)):
        if (have := getattr(data, width, built)) != built:
            raise UserError(f"the data has {width} = {have}, but the bank was built for {width} = {built}")


def read_starts(saes: Mapping[str, SAE], read: Callable[[str], Trained]) -> dict[str, Trained]:
    """By name, the trained SAEs that those not yet initialised are to start from.

    Args:
        read: The SAE at an `init_from`.

    Raises:
        UserError: for one that cannot be read, or does not fit.
    """
    found: dict[str, Trained] = {}
    for name, sae in saes.items():
        if sae.config.init_from is None or sae.initialised:
            continue
        try:
            found[name] = read(sae.config.init_from)
            check_start(sae.config, found[name].sae, sae.d_in, sae.d_out if sae.is_transcoder else None)
        except UserError as error:
            raise UserError(f"SAE {name!r}: {error}") from None
    return found


def begin(
    saes: Mapping[str, SAE],
    horizon: Horizon,
    trainer: L.Trainer,
    starts: Mapping[str, Trained],
    units: tuple[Normalisation, Normalisation | None],
    measured: tuple[Tensor | None, Tensor],
) -> None:
    """Initialise the SAEs, by name, that are not yet, and say what the data and their settings will come to.

    Args:
        starts: What `read_starts` gave.
        units: What the data are in, and the targets where there are any.
        measured: The bank's buffers that a new training fills from its sample: the optimizer's whitening (d_in, d_in), where
            one is used, and what per-token metrics are centred on, (d_out,).
    """
    first = next(iter(saes.values()))
    device = first.W_dec.device
    if device.type == "cpu":
        keep_freed_memory()
    waiting = {name: sae for name, sae in saes.items() if not sae.initialised}
    if not waiting and trainer.ckpt_path is not None:
        return
    x_ND, y_ND = sample(trainer, device)
    for what, have, built in (("d_in", x_ND.shape[-1], first.d_in), ("d_out", y_ND.shape[-1], first.d_out)):
        if have != built:
            raise UserError(f"the data is {have} wide, but the bank was built for {what} = {built}")
    data = undeclared(trainer).datamodule
    source = data if isinstance(data, Source) else None
    for concern in data_concerns(source, x_ND, y_ND if first.is_transcoder else None):
        rank_zero_warn(f"data: {concern}")
    whitening_DD, centre_D = measured
    centre_D.copy_(ordinary(y_ND).mean(0))
    if whitening_DD is not None:
        # Of a width's many entries, and few rows, the covariance would be noise.
        rows = max(SAMPLE, _ROWS_PER_WIDTH * first.d_in)
        whitening_DD.copy_(whitening_of(ordinary(x_ND if rows == SAMPLE else sample(trainer, device, rows).x_BD)))
    for name, sae in waiting.items():
        if name in starts:
            start_from(sae, starts[name], *units)
        else:
            sae.initialise(x_ND, y_ND)
        if sae.config.dead_after is None:
            sae.dead_after.fill_(min(10_000_000, max(1, horizon.tokens // 20)))
    for name, sae in saes.items():
        sae.note_steps(0, horizon)
        for concern in sae.concerns(horizon):
            rank_zero_warn(f"SAE {name!r}: {concern}")


def sample(trainer: L.Trainer, device: torch.device, n: int = SAMPLE) -> Pair:
    """Up to n training activations and targets, on `device`, the same on every rank."""
    data = undeclared(trainer).datamodule
    if hasattr(data, "init_sample"):
        x_ND, y_ND = as_pair(data.init_sample(n))
        return Pair(x_ND.to(device), y_ND.to(device))
    batches, count = [], 0
    for batch in trainer.train_dataloader or ():
        batches.append(as_pair(batch))
        count += len(batches[-1].x_BD)
        if count >= n:
            break
    # Ranks are sent it in the host's memory: a device's tensor would come to all of them on the first one's device.
    sides = (torch.cat(side)[:n].cpu() for side in zip(*batches, strict=True))
    return Pair(*(trainer.strategy.broadcast(side).to(device) for side in sides))
