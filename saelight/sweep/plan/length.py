"""How many tokens a run trains on, as far as its config tells."""

from typing import Any

from saelight.data.source import Description
from saelight.run import config_keys
from saelight.schedules import Horizon


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
