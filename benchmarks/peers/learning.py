"""What training for quality asks of a library: how an SAE learns from rows as they are, and what it is afterwards.

Shapes: B batch, D d_in, F d_sae.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Task:
    """One SAE that a library is to train."""

    variant: str
    d_in: int
    d_sae: int
    l0: int
    """k, or what the library's own means aim at."""
    coefficient: float | None
    """The penalty's weight in the library's own terms; None where it has none or needs none."""
    lr: float
    steps: int
    batch: int
    seed: int


class Inference(Protocol):
    """A trained SAE as it is used: the model's own rows in, latents and the model's own rows out."""

    def encode(self, x_BD: Tensor, /) -> Tensor:
        """The latents (B, F), selected as at inference."""
        ...

    def decode(self, f_BF: Tensor, /) -> Tensor:
        """The reconstruction (B, D)."""
        ...


class Learner(NamedTuple):
    """An SAE in training."""

    step: Callable[[Tensor], None]
    """One whole step on the model's own rows (B, D), the library's normalisation included."""
    inference: Callable[[], Inference]
    """What to call once, after the last step."""
