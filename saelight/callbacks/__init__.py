"""One habit of a run per file; `saelight.Trainer` brings them all. Names load on first use: the declarations beside them
are read without Lightning."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saelight.bank.sae_callback import SAECallback
    from saelight.callbacks.checkpoint import SaveCheckpoint
    from saelight.callbacks.delphi_cache import WriteDelphiCache
    from saelight.callbacks.early_stopping import StopEarly
    from saelight.callbacks.export_saes import ExportSAEs
    from saelight.callbacks.halving import Halving
    from saelight.callbacks.health import WatchHealth
    from saelight.callbacks.progress_bar import TokenProgress
    from saelight.callbacks.prune_trials import PruneTrials
    from saelight.callbacks.top_latents import WriteTopLatents
    from saelight.callbacks.write_progress import WriteProgress

_HOMES = {
    "ExportSAEs": "saelight.callbacks.export_saes",
    "Halving": "saelight.callbacks.halving",
    "PruneTrials": "saelight.callbacks.prune_trials",
    "SAECallback": "saelight.bank.sae_callback",
    "SaveCheckpoint": "saelight.callbacks.checkpoint",
    "StopEarly": "saelight.callbacks.early_stopping",
    "TokenProgress": "saelight.callbacks.progress_bar",
    "WatchHealth": "saelight.callbacks.health",
    "WriteDelphiCache": "saelight.callbacks.delphi_cache",
    "WriteProgress": "saelight.callbacks.write_progress",
    "WriteTopLatents": "saelight.callbacks.top_latents",
}
__all__ = [
    "ExportSAEs",
    "Halving",
    "PruneTrials",
    "SAECallback",
    "SaveCheckpoint",
    "StopEarly",
    "TokenProgress",
    "WatchHealth",
    "WriteDelphiCache",
    "WriteProgress",
    "WriteTopLatents",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'saelight.callbacks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
