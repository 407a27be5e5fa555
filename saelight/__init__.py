"""saelight: train a whole sweep of sparse autoencoders in one pass over activations.

Names load on first use, so that `import saelight` costs nothing before it is needed.
"""

import importlib

_HOMES = {
    "ActivationDataModule": "saelight.data.datamodule",
    "PerSAE": "saelight.loggers",
    "SAEBank": "saelight.bank",
    "SyntheticDataModule": "saelight.data.synthetic_datamodule",
    "Trainer": "saelight.trainer",
    "UserError": "saelight.errors",
    "Gated": "saelight.saes",
    "ReLU": "saelight.saes",
    "TopK": "saelight.saes",
    "load": "saelight.export",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'saelight' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
