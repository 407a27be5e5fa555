"""saelight: train a whole sweep of sparse autoencoders in one pass over activations.

Names load on first use, so that `import saelight` costs nothing before it is needed.
"""

import importlib
from typing import Any

_HOMES = {
    "ActivationDataModule": "saelight.data.datamodule",
    "Halving": "saelight.callbacks",
    "ModelDataModule": "saelight.data.datamodule",
    "PerSAE": "saelight.loggers",
    "SAEBank": "saelight.bank",
    "SAECallback": "saelight.callbacks",
    "ShardWriter": "saelight.data.shards.writer",
    "StopEarly": "saelight.callbacks",
    "SyntheticDataModule": "saelight.data.datamodule",
    "Trainer": "saelight.run.trainer",
    "UserError": "saelight.errors",
    "evaluate": "saelight.evals.evaluate_saes",
    "load": "saelight.convert.reading",
    "results": "saelight.sweep.store.results_table",
}
_ROOMS = ("convert", "metrics", "saes", "sweep")
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"saelight.{name}")
    # What has no home here is a variant: saelight.TopK is saelight.saes.TopK. Other modules are no business of this
    # function, which `from saelight import runs` asks first: it must not import torch for the answer.
    home = importlib.import_module(_HOMES.get(name, "saelight.saes")) if name in _HOMES or name[0].isupper() else None
    if hasattr(home, name):
        return getattr(home, name)
    raise AttributeError(f"module 'saelight' has no attribute {name!r}")


def __dir__() -> list[str]:
    # Whoever asks for all names waits for torch, once; so no second list of the variants can fall behind.
    variants = [name for name in vars(importlib.import_module("saelight.saes")) if name[0].isupper()]
    return sorted([*_HOMES, *_ROOMS, *variants])
