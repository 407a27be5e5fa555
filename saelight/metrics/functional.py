"""The metrics as pure functions: sums over tokens first, the division last.

`*_sums` functions turn one batch into sums that may be added over batches and over processes; the others turn sums (or
a whole array at once) into the number. Everything is accumulated in float64, whatever the inputs' precision, and a
non-finite input gives a non-finite result.

Shapes: B batch (tokens), D d_in, F d_sae, G ground-truth features.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from saelight.errors import UserError
from saelight.ops.counts import firing_counts

_BLOCK = 2**19  # elements widened to float64 at a time: 16 times faster, in cache, than (2048, 3072) whole
_ROUNDING = 1e-13  # a variance below this share of the second moment is rounding, that is to say zero


class Moments(NamedTuple):
    """What FVU and its relatives need to know of the tokens seen."""

    tokens: Tensor  # (), int64
    x_D: Tensor  # Σ x
    x_square: Tensor  # (), Σ ‖x‖²
    e_D: Tensor  # Σ e, where e = x - x̂
    e_square: Tensor  # (), Σ ‖e‖²


class LatentSums(NamedTuple):
    """What L0, L1 and the firing frequencies need to know of the tokens seen."""

    tokens: Tensor  # (), int64
    fired_F: Tensor  # int64, tokens on which the latent was > 0
    magnitude: Tensor  # (), Σ f; not finite as soon as one latent was not


class DensityHistogram(NamedTuple):
    """How many latents fire how often, on a fixed log10 scale so that histograms of different runs overlay."""

    edges: Tensor  # (bins + 1,), log10 of the frequency
    counts: Tensor  # (bins,), int64; latents below the first edge are in the first bin
    silent: int  # latents that never fired, which have no logarithm


def latent_sums(f_BF: Tensor) -> LatentSums:
    """One batch's sums for `l0`, `l1`, `frequency`."""
    _expect_rows("f", f_BF)
    magnitude = sum(block.sum() for (block,) in _wide_blocks(f_BF))
    return LatentSums(_count(f_BF), firing_counts(f_BF), magnitude)


def moment_sums(x_BD: Tensor, x_hat_BD: Tensor) -> Moments:
    """One batch's sums for `fvu` and `explained_variance_centered`."""
    _expect_same(x_BD, x_hat_BD)
    x_D = e_D = x_square = e_square = 0
    for x, x_hat in _wide_blocks(x_BD, x_hat_BD):
        e = x - x_hat
        x_D, e_D = x_D + x.sum(0), e_D + e.sum(0)
        x_square, e_square = x_square + x.square().sum(), e_square + e.square().sum()
    return Moments(_count(x_BD), x_D, x_square, e_D, e_square)


def cosine_sum(x_BD: Tensor, x_hat_BD: Tensor) -> Tensor:
    """Σ cos(x, x̂) over the batch, 0 where either is the zero vector."""
    _expect_same(x_BD, x_hat_BD)
    total = 0
    for x, x_hat in _wide_blocks(x_BD, x_hat_BD):
        norms = x.norm(dim=1) * x_hat.norm(dim=1)
        total = total + torch.where(norms == 0, 0.0, (x * x_hat).sum(1) / norms).sum()
    return total


def explained_per_token_sum(x_BD: Tensor, x_hat_BD: Tensor, mean_D: Tensor) -> Tensor:
    """Σ (1 - ‖e‖² / ‖x - mean‖²) over the batch."""
    _expect_same(x_BD, x_hat_BD)
    total, mean_D = 0, _wide(mean_D).to(_wide_device(x_BD))
    for x, x_hat in _wide_blocks(x_BD, x_hat_BD):
        total = total + (1 - (x - x_hat).square().sum(1) / (x - mean_D).square().sum(1)).sum()
    return total


def fvu(sums: Moments) -> Tensor:
    """Fraction of variance unexplained, Σ‖e‖² / Σ‖x - x̄‖², x̄ the mean of all tokens seen."""
    return sums.e_square / _spread(sums.x_square, sums.x_D, sums.tokens)


def explained_variance_centered(sums: Moments) -> Tensor:
    """1 - ΣVar(e) / ΣVar(x): blind to a constant error."""
    spread_e = _spread(sums.e_square, sums.e_D, sums.tokens)
    return 1 - spread_e / _spread(sums.x_square, sums.x_D, sums.tokens)


def frequency(sums: LatentSums) -> Tensor:
    """The share of tokens on which each latent fires: (F,) float64, NaN once a latent was not finite."""
    frequency_F = sums.fired_F.double() / sums.tokens
    return torch.where(sums.magnitude.isfinite(), frequency_F, torch.nan)


def l0(sums: LatentSums) -> Tensor:
    """Mean number of latents > 0 per token."""
    return torch.where(sums.magnitude.isfinite(), sums.fired_F.sum().double() / sums.tokens, torch.nan)


def l1(sums: LatentSums) -> Tensor:
    """Mean sum of the latents per token."""
    return sums.magnitude / sums.tokens


def share(condition_F: Tensor, frequency_F: Tensor) -> Tensor:
    """The share of latents for which `condition_F` holds; NaN where the frequencies are (nothing seen, or not finite)."""
    return torch.where(frequency_F.isnan().any(), torch.nan, condition_F.double().mean())


def density_histogram(frequency_F: Tensor, lowest: int = -8, bins_per_decade: int = 10) -> DensityHistogram:
    """The histogram of log10 firing frequencies, from 10^lowest to 1."""
    frequency_F = frequency_F.double().cpu()
    fired = frequency_F[frequency_F > 0]
    bins = -lowest * bins_per_decade
    index = ((fired.log10() - lowest) * bins_per_decade).floor().long().clamp(0, bins - 1)
    edges = torch.linspace(lowest, 0, bins + 1, dtype=torch.float64)
    return DensityHistogram(edges, torch.bincount(index, minlength=bins), int((frequency_F == 0).sum()))


@torch.no_grad()
def mmcs(truth_GD: Tensor, W_dec_FD: Tensor, block_elements: int = 2**24) -> Tensor:
    """Mean max cosine similarity, mean_i max_j cos(g_i, d_j): how well the dictionary recovers known directions.

    Of the G × F cosines only `block_elements` exist at a time (64 MB in fp32).

    Raises:
        UserError: widths differ, or one of the two is empty.
    Source: Sharkey, Braun & Millidge, "Taking features out of superposition with sparse autoencoders" (2022).
    """
    _expect_rows("truth", truth_GD)
    _expect_rows("W_dec", W_dec_FD)
    if truth_GD.shape[1] != W_dec_FD.shape[1]:
        raise UserError(f"truth has width {truth_GD.shape[1]} and W_dec {W_dec_FD.shape[1]}: give both in one space")
    if not len(truth_GD) or not len(W_dec_FD):
        raise UserError(f"MMCS of {len(truth_GD)} directions and {len(W_dec_FD)} latents: give at least one of each")
    dtype = torch.promote_types(torch.promote_types(truth_GD.dtype, W_dec_FD.dtype), torch.float32)
    dictionary_DF = normalize(W_dec_FD.to(dtype), dim=1).T
    truth_GD = normalize(truth_GD.to(dictionary_DF), dim=1)
    best = [(rows @ dictionary_DF).amax(1) for rows in truth_GD.split(max(1, block_elements // len(W_dec_FD)))]
    return _wide(torch.cat(best)).mean()


def _spread(square: Tensor, sum_D: Tensor, tokens: Tensor) -> Tensor:
    """Σ‖x - x̄‖² from Σ‖x‖² and Σx."""
    spread = square - sum_D.square().sum() / tokens
    return torch.where(spread <= _ROUNDING * square, 0.0, spread)


def _wide_device(x: Tensor) -> torch.device:
    """Where float64 sums of `x` are made: MPS has no float64."""
    return torch.device("cpu") if x.device.type == "mps" else x.device


def _wide(x: Tensor) -> Tensor:
    return x.detach().to(_wide_device(x)).double()


def _wide_blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of each tensor in float64, a block at a time."""
    rows = max(1, _BLOCK // max(1, tensors[0].shape[1]))
    for blocks in zip(*(t.split(rows) for t in tensors), strict=True):
        yield tuple(_wide(block) for block in blocks)


def _count(x: Tensor) -> Tensor:
    return torch.tensor(len(x), device=_wide_device(x))


def _expect_rows(name: str, x: Tensor) -> None:
    if x.ndim != 2:
        raise UserError(f"{name} has shape {tuple(x.shape)}: flatten it to (rows, width)")


def _expect_same(x: Tensor, x_hat: Tensor) -> None:
    _expect_rows("x", x)
    if x.shape != x_hat.shape:
        raise UserError(f"x is {tuple(x.shape)} and x_hat {tuple(x_hat.shape)}: give one reconstruction per token")
