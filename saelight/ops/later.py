"""Numbers on their way between host and device, which neither waits for."""

from typing import Any

import torch
from torch import Tensor


class Later:
    """A number of the device for the host to read some steps later.

    Read at once it would empty the device's queue: the host would wait until all that it has launched is done, and the
    device for what comes next. A few steps later it has long arrived.
    """

    def __init__(self, value: Tensor) -> None:
        """
        Args:
            value: A scalar, as it is now.
        """
        self._event: torch.cuda.Event | None = None
        if value.is_cuda:
            self._value = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._value = value.detach().cpu().clone()

    def read(self) -> Any:
        """The number. Waits for what was launched before it, and for nothing after."""
        if self._event is not None:
            self._event.synchronize()
        return self._value.item()

    def __reduce__(self) -> tuple[Any, ...]:
        # Of an event there is no copy; of the number there is.
        return Later, (torch.tensor(self.read()),)


def to_device(values: list[int], like: Tensor) -> Tensor:
    """`values` as int64 where `like` is. An ordinary copy to a device waits for all that was launched there before."""
    found = torch.tensor(values)
    return found.pin_memory().to(like.device, non_blocking=True) if like.is_cuda else found.to(like.device)
