"""Starting points: random directions, data points, the centre of a sample, the scale that fits it.

Shapes: N sample rows, D width, F d_sae.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

Centre = Literal["geometric_median", "mean", "zero"]


def unit_rows(n: int, d: int, generator: torch.Generator) -> Tensor:
    """(n, d) rows, uniform on the sphere."""
    if torch.get_default_device().type == "meta":
        # Only the shape is asked for, and there randn would import torch's compiler, for more than a second.
        return torch.empty(n, d)
    return normalize(torch.randn(n, d, generator=generator), dim=1)


def blend(rows_FD: Tensor, data_FD: Tensor, share: float) -> Tensor:
    """Unit rows (F, D) between the directions of `rows_FD` (share 0) and of `data_FD` (share 1)."""
    return normalize((1 - share) * normalize(rows_FD, dim=1) + share * normalize(data_FD, dim=1), dim=1)


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


def fit_scale(misfit: Callable[[float], float], tolerance: float = 1e-4) -> float:
    """The log of the scale at which `misfit`, a falling function of it, is 0; the nearest end of ±e^8 if it has no zero.

    A misfit that falls by 1 per unit (latents linear in the scale) takes two evaluations.
    """
    # Here, not above: a sweep's checks import the SAEs, and this takes a third of a second.
    from scipy.optimize import brentq

    first = misfit(0.0)
    if abs(misfit(first)) <= tolerance:
        return first
    low, high = misfit(-8.0), misfit(8.0)
    if low <= 0 or high >= 0:
        return -8.0 if low <= 0 else 8.0
    return brentq(misfit, -8.0, 8.0, xtol=tolerance)
