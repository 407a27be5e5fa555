"""What the processes of one run agree on: one collective for all SAEs."""

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, ReduceOp, all_reduce, new_group


def share_least(tensors: list[Tensor]) -> None:
    """Replace each tensor, in place, by its least elements over the ranks."""
    _share(tensors, ReduceOp.MIN)


def share_mean(tensors: list[Tensor], world_size: int) -> None:
    """Replace each tensor, in place, by its mean over the ranks."""
    _share(tensors, ReduceOp.SUM)
    torch._foreach_div_(tensors, world_size)


def host_group() -> ProcessGroup:
    """All ranks once more, connected in the hosts' memory: what they agree on there waits for no device. Every rank has to
    call it."""
    return new_group(backend="gloo")


def greatest(numbers: list[int], group: ProcessGroup) -> list[int]:
    """The greatest of each number over the ranks of a `host_group`, agreed on in the host's memory."""
    together = torch.tensor(numbers)
    all_reduce(together, ReduceOp.MAX, group)
    return together.tolist()


def _share(tensors: list[Tensor], operation: ReduceOp.RedOpType) -> None:
    together = torch.cat(tensors)
    all_reduce(together, operation)
    torch._foreach_copy_(tensors, list(together.split([len(t) for t in tensors])))
