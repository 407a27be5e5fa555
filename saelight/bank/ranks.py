"""What the processes of one run agree on: one collective for all SAEs."""

import torch
from torch import Tensor
from torch.distributed import ReduceOp, all_reduce


def share_least(tensors: list[Tensor]) -> None:
    """Replace each tensor, in place, by its least elements over the ranks."""
    _share(tensors, ReduceOp.MIN)


def share_mean(tensors: list[Tensor], world_size: int) -> None:
    """Replace each tensor, in place, by its mean over the ranks."""
    _share(tensors, ReduceOp.SUM)
    torch._foreach_div_(tensors, world_size)


def _share(tensors: list[Tensor], operation: ReduceOp.RedOpType) -> None:
    together = torch.cat(tensors)
    all_reduce(together, operation)
    torch._foreach_copy_(tensors, list(together.split([len(t) for t in tensors])))
