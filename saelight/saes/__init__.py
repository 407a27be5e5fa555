"""The variants, one file and one line each. `saelight.saes.TopK` is a config; its `build(d_in)` gives the module."""

from saelight.saes.abs_topk import AbsTopK as AbsTopK
from saelight.saes.batch_topk import BatchTopK as BatchTopK
from saelight.saes.gated import Gated as Gated
from saelight.saes.gated_hard_concrete import GatedHardConcrete as GatedHardConcrete
from saelight.saes.hard_concrete import HardConcrete as HardConcrete
from saelight.saes.jump_relu import JumpReLU as JumpReLU
from saelight.saes.losses import Losses as Losses
from saelight.saes.losses import Moment as Moment
from saelight.saes.matching_pursuit import MatchingPursuit as MatchingPursuit
from saelight.saes.matryoshka import Matryoshka as Matryoshka
from saelight.saes.penalised import Penalised as Penalised
from saelight.saes.relu import ReLU as ReLU
from saelight.saes.sae import SAE as SAE
from saelight.saes.sae import SAEConfig as SAEConfig
from saelight.saes.topk import TopK as TopK
