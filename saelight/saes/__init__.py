"""The variants, one file each. `saelight.saes.TopK` is a config; its `build(d_in)` gives the module."""

from saelight.saes.base import SAE, Losses, Moment, Penalised, SAEConfig
from saelight.saes.gated import Gated
from saelight.saes.relu import ReLU
from saelight.saes.topk import TopK

__all__ = ["SAE", "Gated", "Losses", "Moment", "Penalised", "ReLU", "SAEConfig", "TopK"]
