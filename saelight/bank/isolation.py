"""What keeps one SAE's failures from its siblings: own seeds, own clipping, quarantine.

N SAEs.
"""

import hashlib
import math

import torch
from torch import Tensor, nn


def derived_seed(run_seed: int, name: str) -> int:
    """An SAE's seed from the run's seed and its name alone, so that adding an SAE to a run changes no other."""
    return int.from_bytes(hashlib.blake2b(f"{run_seed}/{name}".encode(), digest_size=7).digest())


def own_gradients(loss: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """The gradients of one SAE's loss; non-finite where the loss is."""
    # Backward runs in the precision its forward chose, not in autocast's.
    with torch.autocast(loss.device.type, enabled=False):
        gradients = list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
    # A non-finite loss shows in a gradient, and so on every rank once DDP has reduced it; a finite one adds 0.
    smallest = min(range(len(gradients)), key=lambda j: gradients[j].numel())
    gradients[smallest] += loss.detach() * 0
    return gradients


def clip_gradients(gradients: list[Tensor], largest: float | None) -> tuple[Tensor, Tensor]:
    """Scale `gradients` in place to an L2 norm of at most `largest`; all of them to 0 when the norm is not finite.

    Returns:
        The norm before scaling and whether it is finite, both scalars on the gradients' device; nothing waits for it.
    """
    if gradients[0].is_cpu:
        norm = torch.nn.utils.get_total_norm(gradients)
    else:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    finite, factor = norm < math.inf, None if largest is None else (largest / (norm + 1e-6)).clamp(max=1.0)
    if norm.is_cpu:
        if not finite:
            torch._foreach_zero_(gradients)
        elif factor is not None and factor < 1:
            torch._foreach_mul_(gradients, factor)
        return norm, finite
    if factor is not None:
        torch._foreach_mul_(gradients, factor)
    # NaN survives a product with 0, so the zeros are written.
    failed = ~finite
    for gradient in gradients:
        gradient.masked_fill_(failed, 0.0)
    return norm, finite


class Quarantine(nn.Module):
    """Which SAEs met a non-finite loss or gradient, and at which optimizer step: marked on the device, read later."""

    REASONS = ("", "loss", "gradient")
    step_N: Tensor
    reason_N: Tensor
    loss_finite_N: Tensor

    def __init__(self, n_saes: int) -> None:
        super().__init__()
        self.register_buffer("step_N", torch.full((n_saes,), -1))
        self.register_buffer("reason_N", torch.zeros(n_saes, dtype=torch.int64))
        self.register_buffer("loss_finite_N", torch.ones(n_saes, dtype=torch.bool), persistent=False)
        self.stopped: set[int] = set()
        """The SAEs known on the host to be quarantined."""

    def note_loss(self, i: int, loss: Tensor) -> None:
        """Record whether this batch's loss of SAE `i` is finite, until the step it is part of."""
        self.loss_finite_N[i] &= loss.isfinite()

    def note_gradient(self, i: int, finite: Tensor, step: int) -> None:
        """Record whether SAE `i`'s gradient was finite at `step`; the first failure stays."""
        failed = ~finite & (self.step_N[i] < 0)
        self.step_N[i] = torch.where(failed, step, self.step_N[i])
        self.reason_N[i] = torch.where(failed, torch.where(self.loss_finite_N[i], 2, 1), self.reason_N[i])
        self.loss_finite_N[i] = True

    def newly_stopped(self) -> list[int]:
        """The SAEs marked since the last call. Waits for the device."""
        new = [i for i, step in enumerate(self.step_N.tolist()) if step >= 0 and i not in self.stopped]
        self.stopped.update(new)
        return new

    def describe(self, i: int) -> str:
        """What happened to SAE `i`, e.g. `non-finite gradient at step 12`."""
        return f"non-finite {self.REASONS[int(self.reason_N[i])]} at step {int(self.step_N[i])}"
