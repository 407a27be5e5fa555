"""The dead latents, for the losses that teach them, without a step that waits for their number.

How many there are decides the shapes of what is computed, so the host has to know it, and asking a GPU for it would leave
it idle in every step. So every 10 optimizer steps those are looked for that can be dead by the next look, the dying, and two
steps before they are used, so that their number has arrived by then. Which of them are dead is asked in each step, where
they lie: the loss is the same as if all latents were looked at. When to look depends on the steps taken alone, and what was
found is in the checkpoint: logging, validations and resuming change nothing.
Shapes: B batch, D d_in (d_out of W_dec), F d_sae, A latents computed with, on a GPU a power of two of them.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelight.ops.later import Later
from saelight.ops.matmul import centred_product
from saelight.saes.auxk import auxk
from saelight.saes.sae import SAE
from saelight.schedules import Horizon

_EVERY = 10  # optimizer steps
_AHEAD = 2  # steps: a GPU's queue seldom holds more


class Taught(NamedTuple):
    """What the dead latents' loss needs. Those that are not dead have decoder rows of 0, without gradient."""

    latents_A: Tensor
    """Their numbers."""
    dead_A: Tensor | None
    """Which of them are dead, bool (A,); None: all are."""
    pre_BA: Tensor
    """Their pre-activations, b_enc included."""
    W_dec_AD: Tensor
    """Their decoder rows."""


class TeachesDead(SAE):
    """For variants with `b_enc`."""

    training_state = (*SAE.training_state, "dying", "dying_next")

    k_aux: int
    """Dead latents that AuxK uses per token."""
    dying: Tensor
    dying_next: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("dying", torch.zeros(self.d_sae, dtype=torch.bool))
        self.register_buffer("dying_next", torch.zeros(self.d_sae, dtype=torch.bool))
        self._n_next: Later | None = None
        self._numbers: Tensor | None = None
        """Of the dying, and of some that fill up; None: yet to be found."""

    def note_steps(self, done: int, horizon: Horizon) -> None:
        super().note_steps(done, horizon)
        if done == 0 or (done + _AHEAD) % _EVERY == 0:
            # One step more than they are used for: not all have as many tokens.
            self.look_for_dying((_EVERY + _AHEAD + 1) * horizon.tokens_per_step)
        if done % _EVERY == 0:
            self.use_dying()

    @torch.no_grad()
    def look_for_dying(self, tokens: float) -> None:
        """Look for the latents that are dead, or will be within so many tokens."""
        self.dying_next.copy_(self.tokens_since_fired + tokens >= self.dead_after)
        self._n_next = Later(self.dying_next.sum())

    @torch.no_grad()
    def use_dying(self) -> None:
        """From now on compute with those that were found last."""
        self.dying.copy_(self.dying_next)
        # Not on its way where training was resumed in between.
        self._numbers = None if self._n_next is None else self._first(self._n_next.read())
        self._n_next = None

    def _first(self, n: int) -> Tensor:
        # Of a size that does not change with every latent that dies or fires. Those that fill up cannot be dead.
        size = n if n == 0 or self.dying.is_cpu else min(1 << (n - 1).bit_length(), self.d_sae)
        return self.dying.logical_not().byte().argsort(stable=True)[:size]

    def taught(self, x_BD: Tensor) -> Taught | None:
        """The dead latents on a batch; None where there are none, as far as the host knows."""
        if self._numbers is None:
            self._numbers = self._first(int(self.dying.sum()))
        latents_A = self._numbers
        if len(latents_A) == 0:
            return None
        dead_A = self.dead()[latents_A]
        if latents_A.is_cpu:
            latents_A = latents_A[dead_A]
            if len(latents_A) == 0:
                return None
        centre_D = None if self.is_transcoder else self.b_dec
        pre_BA = centred_product(x_BD, centre_D, self.W_enc[:, latents_A], self.b_enc[latents_A])
        W_dec_AD = self.W_dec[latents_A]
        if latents_A.is_cpu:
            return Taught(latents_A, None, pre_BA, W_dec_AD)
        return Taught(latents_A, dead_A, pre_BA, W_dec_AD * dead_A[:, None])

    def auxk(self, x_BD: Tensor, error_BD: Tensor) -> Tensor:
        """AuxK (auxk.py), 0 while no latent is dead."""
        if (taught := self.taught(x_BD)) is None:
            return error_BD.new_zeros(())
        return auxk(taught.pre_BA, error_BD, taught.W_dec_AD, self.k_aux, self.signed, taught.dead_A)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._numbers = None  # they lie on the device that is left
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._numbers = self._n_next = None
        super()._load_from_state_dict(*args, **kwargs)


def teach_dead(sae: SAE) -> None:
    """Have those that are dead now taught from now on, for an objective without the steps in which they would be found."""
    if isinstance(sae, TeachesDead):
        sae.look_for_dying(0)
        sae.use_dying()
