"""What a `lightning.Trainer` has without declaring it."""

from typing import Any, Protocol, cast

import lightning as L


class Undeclared(Protocol):
    """Attributes that Lightning's connectors give every Trainer."""

    callbacks: list[L.Callback]
    datamodule: Any
    """The run's data module, or None."""
    fast_dev_run: int | bool
    log_every_n_steps: int


def undeclared(trainer: L.Trainer) -> Undeclared:
    """The trainer itself, with these attributes known to type checkers."""
    return cast(Undeclared, trainer)
