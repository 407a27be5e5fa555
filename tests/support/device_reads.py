"""Operators that wait for a device, refused: what a training step must do without."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = {
    "_local_scalar_dense",  # item(), tolist(), int(), bool() and `if`
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "bincount",
    "histc",
    "unique_consecutive",
    "_unique",
    "_unique2",
    "unique_dim",
    "repeat_interleave",
}
"""Those whose result, or its shape, the host has to know."""
ATOMIC = {"index_add", "scatter_add", "scatter_reduce", "index_reduce", "embedding_dense_backward", "put"}
"""Those that add on a GPU in an order of chance."""


class Refused(Exception):
    """A step used an operator that it must do without."""


class NoReads(TorchDispatchMode):
    """Refuses every operator that reads tensors `on` a kind of device, or copies to or from it.

    `atomics`: also those that add floats at places which may be the same.
    """

    def __init__(self, on: str, atomics: bool = False) -> None:
        super().__init__()
        self.on, self.atomics = on, atomics

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::").rstrip("_") if func.namespace == "aten" else ""
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        here = [t for t in given if t.device.type == self.on]
        name = "_" + name if func._schema.name == "aten::_local_scalar_dense" and not name.startswith("_") else name
        if here and name in READS:
            raise Refused(f"{func} reads the device")
        if here and name in ("index", "index_put", "_index_put_impl") and any(_is_mask(t) for t in args[1]):
            raise Refused(f"{func} by a mask reads the device")
        if self.atomics and name in ATOMIC and any(t.is_floating_point() for t in here) and not _apart(name, args):
            raise Refused(f"{func} adds in an order of chance")
        out = func(*args, **(kwargs or {}))
        copies = name in ("_to_copy", "copy", "_copy_from")
        if copies and len({t.device.type for t in [*given, *tree_leaves(out)] if isinstance(t, Tensor)}) > 1:
            raise Refused(f"{func} copies between the host and the device, which waits")
        return out


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _apart(name: str, args: Any) -> bool:
    """Whether no two additions meet, as far as the operator is `scatter_add`."""
    return name == "scatter_add" and not (args[2].sort(args[1]).values.diff(dim=args[1]) == 0).any()
