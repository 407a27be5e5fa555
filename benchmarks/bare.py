"""A bank's whole training step with nothing around it: no Lightning, no logging.

Losses, gradients one SAE at a time, statistics, clipping, the running state, one optimizer, the decoder constraint: what
`SAEBank` does, in its order. Shapes: B batch, D d_in.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from saelight.bank.isolation import clip_gradients, own_gradients
from saelight.bank.optimizer import adamw
from saelight.ops.handover import hand_over
from saelight.saes import SAE, Moment
from saelight.schedules import Horizon


class BareLoop:
    def __init__(
        self,
        saes: Sequence[SAE],
        horizon: Horizon,
        dtype: torch.dtype = torch.float32,
        whitening_DD: Tensor | None = None,
    ) -> None:
        """
        Args:
            dtype: bfloat16 for autocast.
            whitening_DD: The bank's (`latent_adamw.py`).
        """
        self.saes, self.horizon, self.autocast = saes, horizon, dtype != torch.float32
        made = adamw([(str(i), sae) for i, sae in enumerate(saes)], horizon, whitening_DD)
        self.optimizer, self.schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
        self.steps = 0
        for sae in saes:
            sae.note_steps(0, horizon)

    def __call__(self, x_BD: Tensor) -> None:
        moment = Moment(self.steps, self.horizon)
        total, parameters, gradients, measured = torch.zeros(()), [], [], []
        for sae in self.saes:
            own = list(sae.parameters())
            parameters += own
            with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
                losses = sae.losses(x_BD, x_BD, moment)
                gradients += own_gradients(losses.total, own)
            sae.tokens_since_fired.add_(len(x_BD)).masked_fill_(losses.counts_F > 0, 0)
            total += losses.total.detach()
            measured.append(losses.measured)
        loss = hand_over(total.requires_grad_(), gradients, parameters)
        del gradients  # as the bank does by returning: what is still referenced, autograd copies
        loss.backward()
        for sae in self.saes:
            sae.constrain_gradients()
            clip_gradients([p.grad for p in sae.parameters()], sae.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        for sae, values in zip(self.saes, measured, strict=True):
            sae.constrain_weights()
            if values is not None:
                sae.absorb(values, moment)
            sae.note_steps(self.steps + 1, self.horizon)
        self.steps += 1
