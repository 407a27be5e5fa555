"""The sinks that have a name, and how one is found."""

import importlib
from typing import Any

from saelight.errors import UserError, did_you_mean
from saelight.loggers.sink import Sink

SINKS = {
    "csv": "saelight.loggers.csv_file.CSVSink",
    "tensorboard": "saelight.loggers.tensorboard_sink.TensorBoardSink",
    "wandb": "saelight.loggers.wandb_sink.WandbSink",
}
"""Class paths by the name that `PerSAE(to=...)` takes. Imported where they are used, for some take long."""


def sink(target: str, **settings: Any) -> Sink:
    """The sink of a name or a class path.

    Raises:
        UserError: There is none, or it does not take `settings`.
    """
    module, _, name = SINKS.get(target, target).rpartition(".")
    if not module:
        raise UserError(f"cannot log to {target!r}: choose from {', '.join(SINKS)}{did_you_mean(target, SINKS)}")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"cannot log to {target!r}: {error}; give the path of a class, or one of {', '.join(SINKS)}"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Sink)):
        raise UserError(f"cannot log to {target!r}: it is no subclass of saelight.loggers.Sink")
    return cls(**settings)
