"""What keeps one SAE's failures from its siblings: own seeds, own clipping, quarantine.

N SAEs.
"""

import hashlib
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_MOST_UNREAD = 1 << 14  # losses and norms that wait to be read: 16 MB on a device


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
    gradients[smallest].add_(loss.detach(), alpha=0)
    return gradients


def clip_gradients(gradients: list[Tensor], largest: float | None) -> tuple[Tensor, Tensor]:
    """Scale `gradients` in place to an L2 norm of at most `largest`; all of them to 0 when the norm is not finite.

    Returns:
        The norm before scaling and whether it is finite, both scalars on the gradients' device; nothing waits for it.
    """
    if not gradients[0].is_cpu:
        return _clip_on_device(gradients, largest)
    norm = torch.nn.utils.get_total_norm(gradients)
    finite = norm < math.inf
    if not finite:
        torch._foreach_zero_(gradients)
    elif largest is not None and (factor := (largest / (norm + 1e-6)).clamp(max=1.0)) < 1:
        torch._foreach_mul_(gradients, factor)
    return norm, finite


def _clip_on_device(gradients: list[Tensor], largest: float | None) -> tuple[Tensor, Tensor]:
    """`clip_gradients` without asking the device anything, in few launches."""
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if largest is not None:
        torch._foreach_div_(gradients, norm.add(1e-6).div_(largest).clamp_(min=1.0))
    # NaN survives every division, so the zeros are written.
    finite = norm < math.inf
    failed = ~finite
    for gradient in gradients:
        gradient.masked_fill_(failed, 0.0)
    return norm, finite


class Quarantine(nn.Module):
    """Which SAEs met a non-finite loss or gradient, and at which optimizer step: noted on the device, read later."""

    REASONS = ("", "loss", "gradient")
    step_N: Tensor
    reason_N: Tensor

    def __init__(self, n_saes: int) -> None:
        super().__init__()
        self.register_buffer("step_N", torch.full((n_saes,), -1))
        self.register_buffer("reason_N", torch.zeros(n_saes, dtype=torch.int64))
        self.stopped: set[int] = set()
        """The SAEs known on the host to be quarantined."""
        self._losses: dict[int, Tensor] = {}
        self._unread: list[_Noted] = []

    def note_loss(self, i: int, loss: Tensor) -> None:
        """Note this batch's loss of SAE `i`, until the step it is part of."""
        self._losses[i] = self._losses[i] + loss.detach() if i in self._losses else loss.detach()

    def note_gradient(self, i: int, norm: Tensor, step: int) -> None:
        """Note the norm of SAE `i`'s gradient at `step`."""
        self._unread.append(_Noted(i, step, self._losses.pop(i), norm))
        if len(self._unread) == _MOST_UNREAD:
            self._read()

    def _read(self) -> None:
        """Mark the SAEs whose numbers noted since the last call are not finite; the first failure stays."""
        if not self._unread:
            return
        noted, self._unread = self._unread, []
        numbers = torch.stack([number for of in noted for number in (of.loss, of.norm)]).tolist()
        for of, loss, norm in zip(noted, numbers[::2], numbers[1::2], strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)) and self.step_N[of.sae] < 0:
                self.step_N[of.sae] = of.step
                self.reason_N[of.sae] = 1 if not math.isfinite(loss) else 2

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._read()
        super()._save_to_state_dict(*args, **kwargs)

    def newly_stopped(self) -> list[int]:
        """The SAEs that failed since the last call. Waits for the device."""
        self._read()
        new = [i for i, step in enumerate(self.step_N.tolist()) if step >= 0 and i not in self.stopped]
        self.stopped.update(new)
        return new

    def describe(self, i: int) -> str:
        """What happened to SAE `i`, e.g. `non-finite gradient at step 12`."""
        return f"non-finite {self.REASONS[int(self.reason_N[i])]} at step {int(self.step_N[i])}"


class _Noted(NamedTuple):
    sae: int
    step: int
    loss: Tensor
    norm: Tensor
