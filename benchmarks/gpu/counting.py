"""Counts what a GPU would be told to do: launches, bytes and device reads of operators on tensors that hold nothing.

Meta tensors have shapes and no memory: saelight takes them for a device's, as it does whatever is not a CPU's.
"""

import math
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import saelight
from saelight.ops import noise

_NO_LAUNCH = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_unsafe_view",
    "lift_fresh",
    "squeeze_",
}
_OVERWRITES = {"fill_", "zero_", "copy_", "_foreach_zero_", "_foreach_copy_", "random_", "uniform_", "normal_"}
"""They write in place without reading what was there."""
_GATHERS = {"gather", "index_select", "index", "take", "embedding"}
"""Of their first tensor they read as much as comes out."""
_SCATTERS = {"scatter_", "scatter_add_", "index_put_", "index_add_", "index_copy_", "index_fill_", "_index_put_impl_"}
"""Of their first tensor they touch as much as their last one has."""
_READS = {"_local_scalar_dense": 1, "is_nonzero": 1, "equal": 1, "nonzero": 1, "masked_select": 1, "bincount": 2}
"""How often they make the host wait for the device."""
_ONLY_READ = {"_local_scalar_dense", "is_nonzero", "equal"}


@dataclass
class Count:
    launches: int = 0
    bytes: int = 0
    reads: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.launches + other.launches, self.bytes + other.bytes, self.reads + other.reads)


@dataclass
class Counted:
    """What was counted, by stage and by operator."""

    stages: defaultdict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    operators: defaultdict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    reads: Counter[str] = field(default_factory=Counter)
    """By saelight's line."""

    @property
    def total(self) -> Count:
        return sum(self.stages.values(), Count())


class Counting(TorchDispatchMode):
    """Counts the operators on meta tensors that run within it.

    A launch is an operator that is no view; a fused or foreach operator is one, whatever it is given. Bytes are those of its
    inputs and outputs, an upper bound where a cache holds some.

    Args:
        found: How many entries a `nonzero` finds.
    """

    def __init__(self, found: int = 0) -> None:
        super().__init__()
        self.counted, self.found = Counted(), found
        self.stage = "forward"

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name, inputs = func._schema.name.split("::")[1], _tensors((args, kwargs))
        out = self._answer(func, name, inputs, args, kwargs)
        if any(t.is_meta for t in [*inputs, *_tensors(out)]) and not func.is_view and name not in _NO_LAUNCH:
            reads = _READS.get(name, 0)
            reads += name == "index" and any(t.dtype == torch.bool for t in inputs[1:])
            reads += name == "_to_copy" and not out.is_meta
            moved = _moved(func, name, args, kwargs, out)
            self._add(name, Count(launches=name not in _ONLY_READ, bytes=moved, reads=reads))
        return out

    def _answer(self, func: Any, name: str, inputs: list[Tensor], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The operator's result, or a stand-in where it needs numbers that meta tensors do not have."""
        if any(t.is_meta for t in inputs):
            if name in ("is_nonzero", "equal"):
                return True
            if name == "_local_scalar_dense":
                return torch.ones((), dtype=inputs[0].dtype).item()
            if name == "nonzero":
                return inputs[0].new_empty((self.found, inputs[0].dim()), dtype=torch.int64)
            if name == "_fused_adamw_":
                return None
            if name == "_to_copy" and str(kwargs.get("device")) == "cpu":
                return torch.zeros(inputs[0].shape, dtype=inputs[0].dtype)
        return func(*args, **kwargs)

    def _add(self, name: str, count: Count) -> None:
        stage = "backward" if self.stage == "forward" and torch._C._current_graph_task_id() != -1 else self.stage
        self.counted.stages[stage] += count
        self.counted.operators[name] += count
        if count.reads:
            package = str(Path(saelight.__file__).parent)
            lines = [frame for frame in traceback.extract_stack() if frame.filename.startswith(package)]
            where = f"{Path(lines[-1].filename).name}:{lines[-1].lineno} {lines[-1].line}" if lines else "elsewhere"
            self.counted.reads[where] += count.reads


def _tensors(tree: Any) -> list[Tensor]:
    return [t for t in tree_leaves(tree) if isinstance(t, Tensor)]


def _size(tensors: list[Tensor]) -> int:
    """Bytes; what is expanded counts once."""
    return sum(
        t.element_size() * math.prod(n for n, stride in zip(t.shape, t.stride(), strict=True) if stride) for t in tensors
    )


def _moved(func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    """The bytes that an operator reads and writes."""
    inputs = _tensors((args, kwargs))
    if name in _GATHERS:
        return _size(inputs[1:]) + 2 * _size(_tensors(out))
    if name in _SCATTERS:
        return _size(inputs[1:]) + 2 * _size(inputs[-1:])
    if name == "_fused_adamw_":
        # It changes parameters and both moments; gradients only where it is given a scale.
        changed = [args[0], *args[2:4], *([args[1]] if kwargs.get("grad_scale") is not None else [])]
        return _size(inputs) + _size(_tensors(changed))
    if name.startswith("new_") or name.endswith("_like"):
        # They look at nothing but a shape and a dtype.
        return _size(_tensors(out))
    written = read = 0
    for i, argument in enumerate(func._schema.arguments):
        value = args[i] if i < len(args) else kwargs.get(argument.name)
        if argument.alias_info is not None and argument.alias_info.is_write:
            written += _size(_tensors(value))
            read += 0 if argument.is_out or name in _OVERWRITES else _size(_tensors(value))
        else:
            read += _size(_tensors(value))
    return read + (written or _size(_tensors(out)))


@contextmanager
def as_on_a_gpu(autocast: torch.dtype | None) -> Iterator[None]:
    """Gives meta tensors what they lack: autocast to this dtype (None: none) and generators of random numbers."""
    with (
        mock.patch.object(torch, "is_autocast_enabled", return_value=autocast is not None),
        mock.patch.object(torch, "get_autocast_dtype", return_value=autocast),
        mock.patch.object(torch, "autocast", return_value=nullcontext()),
        mock.patch.object(noise, "generator", return_value=None),
    ):
        yield
