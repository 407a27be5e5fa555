"""Where the numbers go: one run per SAE, in CSV, TensorBoard and W&B alike (docs/logging.md)."""

from saelight.loggers.per_sae import PerSAE
from saelight.loggers.sink import Sink, SinkRun

__all__ = ["PerSAE", "Sink", "SinkRun"]
