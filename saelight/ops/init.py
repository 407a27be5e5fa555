"""Data-dependent starting points: the centre of a sample and the encoder's scale."""

from typing import Literal

import torch
from torch import Tensor

Centre = Literal["geometric_median", "mean", "zero"]


def centre(sample_ND: Tensor, kind: Centre) -> Tensor:
    """The (D,) start of b_dec: the sample's geometric median, mean, or zero."""
    if kind == "zero":
        return torch.zeros_like(sample_ND[0])
    if kind == "mean":
        return sample_ND.mean(0)
    return geometric_median(sample_ND)


def geometric_median(sample_ND: Tensor, iterations: int = 100, tolerance: float = 1e-6) -> Tensor:
    """The point (D,) with the least summed distance to all rows, by Weiszfeld's iteration (Weiszfeld 1937).

    Stops when a step is shorter than `tolerance` times the rows' mean distance.
    """
    x_ND = sample_ND.double()
    point_D = x_ND.mean(0)
    for _ in range(iterations):
        distance_N = (x_ND - point_D).norm(dim=1).clamp_min(torch.finfo(torch.float64).eps)
        weight_N = 1 / distance_N
        previous_D, point_D = point_D, (weight_N @ x_ND) / weight_N.sum()
        if (point_D - previous_D).norm() <= tolerance * distance_N.mean():
            break
    return point_D.to(sample_ND.dtype)
