"""What every metric here is: named sums that torchmetrics adds over batches and over processes."""

import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics import Metric


class Sums(Metric):
    """States are sums (float64, or int64 for counts); a subclass divides them in `compute`.

    Two metrics of one `MetricCollection` share their states if and only if they derive from the same family (the state
    names differ between families), so a family's sums are made once per batch.
    """

    is_differentiable = False
    full_state_update = False

    def add_sum(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        """Declare a state of zeros. Its shape is fixed here, so that a process without data can take part in a sum."""
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def add(self, **terms: Tensor) -> None:
        """Add one batch's terms to the states of these names."""
        for name, term in terms.items():
            state = getattr(self, name)
            setattr(self, name, state + term.to(state.device))

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Self:
        """Follow a module to its device but never to its precision; stay on the CPU where the device has no float64."""
        device = fn(torch.empty(0, device=self.device)).device
        if device.type == "mps":
            return self
        super()._apply(lambda t: t.to(device), exclude_state)
        return self

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """Before the first update the answer is NaN, which needs no warning beside it."""
        wrapped = super()._wrap_compute(compute)

        @wraps(compute)
        def quiet(*args: Any, **kwargs: Any) -> Any:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*was called before the ``update`` method", category=UserWarning)
                return wrapped(*args, **kwargs)

        return quiet
