"""Which pre-activations to keep: found chunk by chunk, so that (B, F) never lies in memory as a whole.

The scan may keep more than the rule wants, where that is cheaper; then the exact rule trims them. NaN counts as larger
than everything, so that a broken SAE's loss shows it.
Shapes: B batch, C rows of a chunk, D d_in, F d_sae, E entries, K kept per token.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from saelight.ops.bags import dots
from saelight.ops.dispatch import in_parts, kernels_for, loops_for
from saelight.ops.entries import KeptEntries
from saelight.ops.matmul import compute_dtype, matmul

_CHUNK = 1 << 21  # entries; 8 MB, which stays in a processor's cache
_CHUNK_ON_DEVICE = 1 << 26  # 256 MB: few launches, and products large enough to fill a GPU
_GROUPS = 4
_ROUNDED = 8  # so many more than k are kept where a product in half precision has yet to be done again in float32

Select = Callable[[Tensor], Tensor]
"""Of a chunk's pre-activations (C, F): the places in it, flattened, ascending, of those to keep; a few more are no harm.
(E,), or (C, K) where each token has as many."""


@torch.no_grad()
def scan(
    x_BD: Tensor, centre_D: Tensor | None, W_DF: Tensor, bias_F: Tensor | None, select: Select, signed: bool = False
) -> tuple[Tensor, KeptEntries]:
    """The pre-activations z = (x - centre) @ W + bias that `select` keeps; if `signed` it is shown their absolute values.

    Under autocast the product that finds them runs in half precision, and the kept ones are computed again in float32.
    """
    x_BD = x_BD if centre_D is None else x_BD - centre_D
    dtype = compute_dtype(x_BD)
    left_BD, right_DF = x_BD.to(dtype), W_DF.to(dtype)
    bias = None if bias_F is None else bias_F.to(dtype)
    tokens, d_sae = len(x_BD), W_DF.shape[1]
    # Chunks of one size: a last one of few rows would cost the kernel's preparation for little.
    rows = -(-tokens // -(-tokens * d_sae // (_CHUNK if x_BD.is_cpu else _CHUNK_ON_DEVICE)))
    places, values, per_token = [], [], set[int | None]()
    for first, chunk_CD in zip(range(0, tokens, rows), left_BD.split(rows), strict=True):
        z_CF = matmul(chunk_CD, right_DF, bias)
        kept = select(z_CF.abs() if signed else z_CF)
        per_token.add(kept.shape[1] if kept.ndim == 2 else None)
        kept = kept.flatten()
        values.append(z_CF.view(-1).index_select(0, kept))
        places.append(kept + first * d_sae)
    entries = KeptEntries(torch.cat(places), tokens, d_sae, per_token.pop() if len(per_token) == 1 else None)
    if dtype == x_BD.dtype:
        return torch.cat(values), entries
    z_E = dots(x_BD, entries.rows_E, W_DF.T.contiguous(), entries.latents_E, entries.by_token.starts_N)
    return z_E if bias_F is None else z_E + bias_F[entries.latents_E], entries


def above(bound: Tensor) -> Select:
    """Keeps what exceeds the bound, a scalar or one for each latent (F,)."""

    def select(z_CF: Tensor) -> Tensor:
        if (loops := loops_for(z_CF)) is None or z_CF.dtype == torch.float64:
            return _true(~(z_CF <= bound.to(z_CF.dtype)))
        z_CF = z_CF.float()
        zeros_C, bound_F = np.zeros(len(z_CF), np.float32), bound.float().expand(z_CF.shape[1]).contiguous().numpy()

        def loop(low: int, high: int) -> Tensor:
            places_E = torch.empty((high - low) * z_CF.shape[1] + 1, dtype=torch.int64)
            n = loops.above(z_CF.numpy(), zeros_C, bound_F, low, high, places_E.numpy())
            return places_E[:n].clone()

        return torch.cat(in_parts(loop, len(z_CF)))

    return select


def largest(k: int) -> Select:
    """Keeps the k largest of each token, and few more; after a product in half precision, some more."""

    def select(z_CF: Tensor) -> Tensor:
        wanted = min(k if z_CF.dtype.itemsize >= 4 else k + _ROUNDED, z_CF.shape[1])
        if kernels_for(z_CF) is not None:
            # As many of each as were asked for: a device need not tell how many there are.
            first_C1 = torch.arange(0, z_CF.numel(), z_CF.shape[1], device=z_CF.device)[:, None]
            return z_CF.topk(wanted, dim=1, sorted=False).indices.sort(dim=1).values + first_C1
        loops = loops_for(z_CF)
        if loops is not None and z_CF.dtype != torch.float64 and z_CF.shape[1] >= 2 * _GROUPS * wanted:
            z_CF = z_CF.float()
            places_CK = torch.empty(len(z_CF), wanted, dtype=torch.int64)
            if all(in_parts(lambda low, high: loops.largest(z_CF.numpy(), wanted, low, high, places_CK.numpy()), len(z_CF))):
                return places_CK
        return _true(~(z_CF < _bound_of_largest(z_CF, wanted)))

    return select


def largest_of_chunk(n: int) -> Select:
    """Keeps the n largest of the whole chunk; after a product in half precision, some more."""

    def select(z_CF: Tensor) -> Tensor:
        wanted = n if z_CF.dtype.itemsize >= 4 else n + _ROUNDED * len(z_CF)
        return z_CF.flatten().topk(min(wanted, z_CF.numel()), sorted=False).indices.sort().values

    return select


def _bound_of_largest(z_CF: Tensor, k: int) -> Tensor:
    """What at least k of each row reach, and few more: the k-th largest of the maxima of more than k groups, (C, 1)."""
    size = z_CF.shape[1] // (_GROUPS * k)
    if size >= 2:
        z_CF = z_CF[:, : z_CF.shape[1] // size * size].view(len(z_CF), size, -1).amax(1)
    return z_CF.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)


def _true(mask: Tensor) -> Tensor:
    """Where a mask is true, as places in the flattened one."""
    if not mask.is_cpu:
        return mask.view(-1).nonzero().squeeze(1)
    # numpy's is twice as fast as torch's where few are true.
    return torch.from_numpy(np.flatnonzero(mask.numpy()))


@torch.no_grad()
def largest_of_each_token(by_E: Tensor, entries: KeptEntries, k: int) -> Tensor | None:
    """The places of the k largest entries of each token, or of all where it has fewer, ascending; None: of all entries."""
    if entries.per_token is not None:
        if entries.per_token <= k:
            return None
        first_B1 = torch.arange(0, len(by_E), entries.per_token, device=by_E.device)[:, None]
        chosen_BK = by_E.view(-1, entries.per_token).topk(k, dim=1, sorted=False).indices
        return (chosen_BK.sort(dim=1).values + first_B1).flatten()
    starts_N = entries.by_token.starts_N
    lengths_B = starts_N.diff()
    widest = int(lengths_B.max())
    if widest <= k:
        return None
    places_E = torch.arange(len(by_E), device=by_E.device) - starts_N[entries.rows_E]
    padded_BW = by_E.new_full((entries.tokens, widest), -torch.inf)
    padded_BW.view(-1)[entries.rows_E * widest + places_E] = by_E
    chosen_BK = padded_BW.topk(k, dim=1, sorted=False).indices
    real_BK = chosen_BK < lengths_B[:, None]
    keep_E = torch.zeros_like(by_E, dtype=torch.bool)
    keep_E[(chosen_BK + starts_N[:-1, None])[real_BK]] = True
    return _true(keep_E)


@torch.no_grad()
def largest_of_batch(by_E: Tensor, n: int) -> Tensor | None:
    """The places of the n largest entries of the whole batch, ascending; None: of all entries, where there are no more."""
    if len(by_E) <= n:
        return None
    if kernels_for(by_E) is not None:
        return by_E.topk(n, sorted=False).indices.sort().values
    nth = by_E.kthvalue(len(by_E) - n + 1).values
    keep_E = ~(by_E <= nth)
    # Of those equal to the n-th, the first.
    equal = (by_E == nth).nonzero().squeeze(1)
    keep_E[equal[: n - int(keep_E.sum())]] = True
    return _true(keep_E)
