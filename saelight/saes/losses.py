"""What a training step is told and what it computes.

Shapes: B batch, D d_in (d_out where it concerns the target), F d_sae.
"""

from typing import NamedTuple

from torch import Tensor

from saelight.ops.entries import AllEntries, KeptEntries
from saelight.ops.placed import PlacedEntries
from saelight.schedules import Horizon


class Moment(NamedTuple):
    """Where training stands: all that a loss may depend on beside the batch."""

    step: int
    """Optimizer steps taken."""
    horizon: Horizon
    """The length of training."""
    micro_batch: int = 0
    """Which of the batches accumulated into this step."""
    rank: int = 0
    """Which of the processes that share this step."""


Entries = AllEntries | KeptEntries | PlacedEntries


class Reconstruction(NamedTuple):
    """How well one batch was reconstructed."""

    error_BD: Tensor
    """y - ŷ, in float32 whatever ŷ's precision; without gradient."""
    loss: Tensor
    """The reconstruction term: mean_B ‖y - ŷ‖² / D (a mean over prefixes in Matryoshka SAEs)."""
    mean_square: Tensor
    """mean_B ‖y - ŷ‖² / D of the whole."""


class Losses(NamedTuple):
    """What one training step of one SAE computes. Scalars are means over the batch, in float32."""

    total: Tensor
    """The objective: reconstruction + coefficient · penalty + α · aux."""
    reconstruction: Tensor
    """The whole reconstruction's mean_B ‖y - ŷ‖² / D."""
    penalty: Tensor | None
    """mean_B of the sparsity penalty, without its coefficient; None where the variant has none."""
    aux: Tensor | None
    """The auxiliary term, without its coefficient; None where the variant has none."""
    counts_F: Tensor
    """Tokens of the batch on which each latent fired, int64 (F,)."""
    sparsity: Tensor | float | None = None
    """λ at this moment, warm-up included; None where the variant has none."""
    measured: Tensor | None = None
    """What `absorb` needs of this batch: a vector that is averaged over accumulated batches and over ranks."""
