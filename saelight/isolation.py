"""What keeps one SAE's failures from its siblings: own seeds, own clipping, quarantine.

N SAEs.
"""

import hashlib

import torch
from torch import Tensor, nn


def derived_seed(run_seed: int, name: str) -> int:
    """An SAE's seed from the run's seed and its name alone, so that adding an SAE to a run changes no other."""
    return int.from_bytes(hashlib.blake2b(f"{run_seed}/{name}".encode(), digest_size=7).digest())


def clip_gradients(gradients: list[Tensor], largest: float | None) -> tuple[Tensor, Tensor]:
    """Scale `gradients` in place to an L2 norm of at most `largest`; all of them to 0 when the norm is not finite.

    Returns:
        The norm before scaling and whether it is finite, both scalars on the gradients' device; nothing waits for it.
    """
    norm = torch.nn.utils.get_total_norm(gradients)
    finite = norm.isfinite()
    factor = torch.ones_like(norm) if largest is None else (largest / (norm + 1e-6)).clamp(max=1.0)
    if norm.device.type != "cpu":
        torch._foreach_mul_(gradients, factor)
        # NaN survives a product with 0, so the zeros are written.
        for gradient in gradients:
            gradient.masked_fill_(~finite, 0.0)
    elif not finite:
        torch._foreach_zero_(gradients)
    elif factor < 1:
        torch._foreach_mul_(gradients, factor)
    return norm, finite


class Quarantine(nn.Module):
    """Which SAEs have met a non-finite loss or gradient, and at which optimizer step: marked on the device, read later."""

    def __init__(self, n_saes: int) -> None:
        super().__init__()
        self.register_buffer("step_N", torch.full((n_saes,), -1))
        self.stopped: set[int] = set()
        """The SAEs known on the host to be quarantined."""

    def note(self, i: int, finite: Tensor, step: int) -> None:
        """Record whether SAE `i`'s gradient was finite at `step`; the first failure stays."""
        failed = ~finite & (self.step_N[i] < 0)
        self.step_N[i] = torch.where(failed, step, self.step_N[i])

    def newly_stopped(self) -> list[int]:
        """The SAEs marked since the last call. Waits for the device."""
        new = [i for i, step in enumerate(self.step_N.tolist()) if step >= 0 and i not in self.stopped]
        self.stopped.update(new)
        return new
