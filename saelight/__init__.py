"""saelight: train a whole sweep of sparse autoencoders in one pass over activations.

Names load on first use, so that `import saelight` costs nothing before it is needed.
"""

import importlib

_HOMES = {
    "ActivationDataModule": "saelight.data.datamodule",
    "Halving": "saelight.callbacks",
    "PerSAE": "saelight.loggers",
    "SAEBank": "saelight.bank",
    "StopEarly": "saelight.callbacks",
    "SyntheticDataModule": "saelight.data.synthetic_datamodule",
    "Trainer": "saelight.trainer",
    "UserError": "saelight.errors",
    "load": "saelight.export",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    # What has no home here is a variant: saelight.TopK is saelight.saes.TopK.
    home = importlib.import_module(_HOMES.get(name, "saelight.saes")) if not name.startswith("_") else None
    if hasattr(home, name):
        return getattr(home, name)
    raise AttributeError(f"module 'saelight' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
