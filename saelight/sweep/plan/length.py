"""How many tokens a run trains on, as far as its config tells."""

import math
from typing import Any

from saelight.data.source import Description
from saelight.errors import UserError
from saelight.run import config_keys
from saelight.schedules import Horizon

_WHOLE = ("max_epochs", "max_steps", "accumulate_grad_batches")
_SHARES = ("limit_train_batches", "limit_val_batches", "overfit_batches")


def check_length(config: dict[str, Any], where: str) -> None:
    """Raise `UserError` for settings of a run's length that are no numbers; what else they may be, `fit` says."""
    trainer, model = config.get("trainer") or {}, config.get("model") or {}
    given = {f"trainer.{key}": trainer.get(key) for key in _WHOLE} | {"model.max_tokens": model.get("max_tokens")}
    for key, value in given.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise UserError(f"{where}: {key}: expected a whole number, got {value!r}")
    if (accumulated := trainer.get("accumulate_grad_batches")) is not None and accumulated < 1:
        raise UserError(f"{where}: trainer.accumulate_grad_batches must be at least 1, got {accumulated}")
    for key in _SHARES:
        value = trainer.get(key)
        if value is not None and (
            not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf
        ):
            raise UserError(f"{where}: trainer.{key}: expected a number of batches, or a share of them, got {value!r}")
    if not isinstance(trainer.get("precision"), str | int | None):
        raise UserError(f"{where}: trainer.precision: expected 32-true or bf16-mixed, got {trainer['precision']!r}")


def tokens(config: dict[str, Any], data: Description | None) -> int | None:
    """Tokens of a run on one process; None where nothing tells.

    Args:
        data: Of the run's data; None for a data module that does not describe itself.
    """
    trainer, model = config_keys.effective(config.get("trainer") or {}), config.get("model") or {}
    if data is None:
        return model.get("max_tokens")
    batches = _limited(data.train_rows // data.batch_size, trainer["overfit_batches"] or trainer["limit_train_batches"])
    if not batches:
        return 0  # too few rows for a batch: refused when training begins
    horizon = Horizon.planned(
        batches,
        data.batch_size,
        trainer["accumulate_grad_batches"],
        max_epochs=trainer["max_epochs"],
        max_steps=trainer["max_steps"],
        max_tokens=model.get("max_tokens"),
    )
    return None if horizon is None else horizon.tokens


def _limited(batches: int, limit: int | float) -> int:
    """Lightning's rule: a whole number of batches, or a share of them."""
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)
