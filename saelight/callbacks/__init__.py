"""One habit of a run per file; `saelight.Trainer` brings them all."""

from saelight.callbacks.checkpoint import SaveCheckpoint
from saelight.callbacks.early_stopping import StopEarly
from saelight.callbacks.export_saes import ExportSAEs
from saelight.callbacks.halving import Halving
from saelight.callbacks.health import WatchHealth
from saelight.callbacks.progress_bar import TokenProgress
from saelight.callbacks.prune_trials import PruneTrials
from saelight.callbacks.top_latents import WriteTopLatents
from saelight.callbacks.write_progress import WriteProgress

__all__ = [
    "ExportSAEs",
    "Halving",
    "PruneTrials",
    "SaveCheckpoint",
    "StopEarly",
    "TokenProgress",
    "WatchHealth",
    "WriteProgress",
    "WriteTopLatents",
]
