"""Which pre-activations to keep: found chunk by chunk, so that (B, F) never lies in memory as a whole.

Every rule is two steps. The scan keeps the entries above a lower bound; a bound for the k largest of a token is cheap (the
k-th largest of the maxima of more than k groups of latents). Where that keeps too many, the exact rule trims them.
NaN counts as larger than everything, so that a broken SAE's loss shows it.
Shapes: B batch, C rows of a chunk, D d_in, F d_sae, E entries, K kept per token.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from saelight.ops.bags import dots
from saelight.ops.entries import KeptEntries
from saelight.ops.matmul import compute_dtype, matmul

_CHUNK = 1 << 21  # entries; 8 MB, which stays in a processor's cache
_GROUPS_PER_K = 4
_ROUNDED = 8  # so many more than k are kept where a product in half precision has yet to be done again in float32

Bound = Tensor | Callable[[Tensor], Tensor]
"""What entries must exceed: a scalar or (F,), or a function of a chunk's pre-activations (C, F) to (C, 1)."""


@torch.no_grad()
def scan(x_BD: Tensor, centre_D: Tensor | None, W_DF: Tensor, bias_F: Tensor | None, bound: Bound,
         signed: bool = False) -> tuple[Tensor, KeptEntries]:  # fmt: skip
    """The pre-activations z = (x - centre) @ W + bias that exceed `bound` (their absolute values do, if `signed`).

    Under autocast the product that finds them runs in half precision, and the kept ones are computed again in float32.
    """
    x_BD = x_BD if centre_D is None else x_BD - centre_D
    dtype = compute_dtype(x_BD)
    left_BD, right_DF = x_BD.to(dtype), W_DF.to(dtype)
    bias = None if bias_F is None else bias_F.to(dtype)
    tokens, d_sae = len(x_BD), W_DF.shape[1]
    flat, values, rows = [], [], max(1, _CHUNK // d_sae)
    for first, chunk_CD in zip(range(0, tokens, rows), left_BD.split(rows), strict=True):
        z_CF = matmul(chunk_CD, right_DF, bias)
        by_CF = z_CF.abs() if signed else z_CF
        kept = _places(~(by_CF <= (bound(by_CF) if callable(bound) else bound)))
        values.append(z_CF.view(-1)[kept])
        flat.append(kept + first * d_sae)
    entries = KeptEntries(torch.cat(flat), tokens, d_sae)
    if dtype == x_BD.dtype:
        return torch.cat(values), entries
    z_E = dots(x_BD, entries.rows_E, W_DF.T.contiguous(), entries.latents_E, entries.by_token.starts_N)
    return z_E if bias_F is None else z_E + bias_F[entries.latents_E], entries


def _places(mask: Tensor) -> Tensor:
    """Where a mask is true, as places in the flattened one."""
    # numpy's is twice as fast as torch's where few are true.
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


def bound_of_largest(k: int) -> Callable[[Tensor], Tensor]:
    """The bound that at least k entries of each token exceed or meet, and few more."""

    def bound(z_CF: Tensor) -> Tensor:
        wanted = k if z_CF.dtype == torch.float32 or z_CF.dtype == torch.float64 else k + _ROUNDED
        size = z_CF.shape[1] // (_GROUPS_PER_K * wanted)
        if size < 2:
            at_least = z_CF.topk(min(wanted, z_CF.shape[1]), dim=1, sorted=False).values.amin(1, keepdim=True)
        else:
            groups = z_CF.shape[1] // size
            maxima = z_CF[:, : groups * size].view(len(z_CF), size, groups).amax(1)
            at_least = maxima.topk(wanted, dim=1, sorted=False).values.amin(1, keepdim=True)
        # What equals the bound is to exceed it.
        return torch.nextafter(at_least, at_least.new_tensor(-torch.inf))

    return bound


@torch.no_grad()
def largest_of_each_token(by_E: Tensor, entries: KeptEntries, k: int) -> Tensor:
    """The k largest entries of each token, or all where it has fewer: a mask (E,)."""
    starts_N = entries.by_token.starts_N
    lengths_B = starts_N.diff()
    widest = int(lengths_B.max())
    if widest <= k:
        return torch.ones_like(by_E, dtype=torch.bool)
    places_E = torch.arange(len(by_E)) - starts_N[entries.rows_E]
    padded_BW = by_E.new_full((entries.tokens, widest), -torch.inf)
    padded_BW.view(-1)[entries.rows_E * widest + places_E] = by_E
    chosen_BK = padded_BW.topk(k, dim=1, sorted=False).indices
    real_BK = chosen_BK < lengths_B[:, None]
    keep_E = torch.zeros_like(by_E, dtype=torch.bool)
    keep_E[(chosen_BK + starts_N[:-1, None])[real_BK]] = True
    return keep_E


@torch.no_grad()
def largest_of_batch(by_E: Tensor, n: int) -> Tensor:
    """The n largest entries of the whole batch, or all where there are fewer: a mask (E,)."""
    if len(by_E) <= n:
        return torch.ones_like(by_E, dtype=torch.bool)
    nth = by_E.kthvalue(len(by_E) - n + 1).values
    keep_E = ~(by_E <= nth)
    # Of those equal to the n-th, the first.
    equal = (by_E == nth).nonzero().squeeze(1)
    keep_E[equal[: n - int(keep_E.sum())]] = True
    return keep_E
