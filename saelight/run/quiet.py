"""What Lightning says to everyone, and a user of saelight can do nothing about."""

import logging
import os
import warnings

_NOISE = ("💡", "TPU available", "`weights_only` was not set", "`Trainer.fit` stopped: `max_")


class _Filter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(_NOISE)


_FILTER = _Filter()


def silence_lightning() -> None:
    """Hold it back, on the command line, in scripts and in notebooks."""
    # Lightning calls methods that jsonargparse will rename.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
    # Lightning's advice to all who have srun installed, in a job or not. Without srun, nothing waits in vain here.
    warnings.filterwarnings("ignore", message="The `srun` command is available on your system but is not used")
    for name in ("lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_FILTER)
