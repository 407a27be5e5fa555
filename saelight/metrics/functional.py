"""The metrics of tokens as pure functions: sums over tokens first, the division last.

`*_sums` functions turn one batch into sums that may be added over batches and over processes; the others turn sums (or
a whole array at once) into the number. Everything is accumulated in float64, whatever the inputs' precision, and a
non-finite input gives a non-finite result. x is what should come out: an autoencoder's input, a transcoder's target.

Shapes: B batch (tokens), D width of x, F d_sae.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from saelight.errors import UserError
from saelight.ops.counts import firing_counts

_LOWEST, _HIGHEST, _PER_DECADE = -8, 4, 500  # log10 of the per-token ratios that are told apart
RATIO_BINS = (_HIGHEST - _LOWEST) * _PER_DECADE + 2
"""Bins of the per-token ratios on a fixed logarithmic scale, 500 to the decade from 1e-8 to 1e4; the first and the last hold
what is below and above."""
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
    fired_F: Tensor  # int64, tokens on which the latent was not 0
    magnitude: Tensor  # (), Σ |f|; not finite as soon as one latent was not


class Alignment(NamedTuple):
    """What `cosine`, `l2_ratio` and `reconstruction_bias` need to know of the tokens seen."""

    tokens: Tensor  # (), int64
    cosines: Tensor  # (), Σ cos(x, x̂), 0 where either is the zero vector
    nonzero: Tensor  # (), int64, tokens with x ≠ 0
    ratios: Tensor  # (), Σ ‖x̂‖ / ‖x‖ over those
    dot: Tensor  # (), Σ ⟨x, x̂⟩
    x_hat_square: Tensor  # (), Σ ‖x̂‖²


class PerToken(NamedTuple):
    """What `explained_variance_per_token` and `fvu_median` need to know of the tokens seen."""

    tokens: Tensor  # (), int64, those that are not exactly at the centre
    shares: Tensor  # (), Σ (1 - ‖e‖² / ‖x - mean‖²) over those
    ratios_H: Tensor  # int64, how many of those ‖e‖² / ‖x - mean‖² are in each bin of RATIO_BINS


class DensityHistogram(NamedTuple):
    """How many latents fire how often, on a fixed log10 scale so that histograms of different runs overlay."""

    edges: Tensor  # (bins + 1,), log10 of the frequency
    counts: Tensor  # (bins,), int64; latents below the first edge are in the first bin
    silent: int  # latents that never fired, which have no logarithm


def latent_sums(f_BF: Tensor) -> LatentSums:
    """One batch's sums for `l0`, `l1`, `frequency`."""
    _expect_rows("f", f_BF)
    magnitude = sum((block.abs().sum() for (block,) in _wide_blocks(f_BF)), _zero(f_BF))
    return LatentSums(_count(f_BF), firing_counts(f_BF), magnitude)


def moment_sums(x_BD: Tensor, x_hat_BD: Tensor) -> Moments:
    """One batch's sums for `fvu` and `explained_variance_centered`."""
    _expect_same(x_BD, x_hat_BD)
    x_D = e_D = x_square = e_square = _zero(x_BD)
    for x, x_hat in _wide_blocks(x_BD, x_hat_BD):
        e = x - x_hat
        x_D, e_D = x_D + x.sum(0), e_D + e.sum(0)
        x_square, e_square = x_square + x.square().sum(), e_square + e.square().sum()
    return Moments(_count(x_BD), x_D, x_square, e_D, e_square)


def alignment_sums(x_BD: Tensor, x_hat_BD: Tensor) -> Alignment:
    """One batch's sums for `cosine`, `l2_ratio` and `reconstruction_bias`."""
    _expect_same(x_BD, x_hat_BD)
    cosines = ratios = total_dot = x_hat_square = _zero(x_BD)
    nonzero = _zero(x_BD, torch.int64)
    for x, x_hat in _wide_blocks(x_BD, x_hat_BD):
        dot, norm, norm_hat = (x * x_hat).sum(1), x.norm(dim=1), x_hat.norm(dim=1)
        norms = norm * norm_hat
        cosines = cosines + torch.where(norms == 0, 0.0, dot / norms).sum()
        nonzero = nonzero + (norm != 0).sum()
        ratios = ratios + torch.where(norm == 0, 0.0, norm_hat / norm).sum()
        total_dot, x_hat_square = total_dot + dot.sum(), x_hat_square + norm_hat.square().sum()
    return Alignment(_count(x_BD), cosines, nonzero, ratios, total_dot, x_hat_square)


def per_token_sums(x_BD: Tensor, x_hat_BD: Tensor, mean_D: Tensor) -> PerToken:
    """One batch's sums for `explained_variance_per_token` and `fvu_median`."""
    _expect_same(x_BD, x_hat_BD)
    tokens, shares, mean_D = _zero(x_BD, torch.int64), _zero(x_BD), _wide(mean_D).to(_wide_device(x_BD))
    ratios_H = torch.zeros(RATIO_BINS, dtype=torch.int64, device=_wide_device(x_BD))
    for x, x_hat in _wide_blocks(x_BD, x_hat_BD):
        distance = (x - mean_D).square().sum(1)
        away = distance != 0
        ratio = (x - x_hat).square().sum(1) / distance
        tokens = tokens + away.sum()
        shares = shares + torch.where(away, 1 - ratio, 0.0).sum()
        bins = ((ratio.log10() - _LOWEST) * _PER_DECADE).floor().nan_to_num().clamp(-1, RATIO_BINS - 2).long() + 1
        ratios_H.index_add_(0, bins, away.long())
    return PerToken(tokens, shares, ratios_H)


def fvu(sums: Moments) -> Tensor:
    """Fraction of variance unexplained, Σ‖e‖² / Σ‖x - x̄‖², x̄ the mean of all tokens seen."""
    return sums.e_square / _spread(sums.x_square, sums.x_D, sums.tokens)


def explained_variance_centered(sums: Moments) -> Tensor:
    """1 - ΣVar(e) / ΣVar(x): blind to a constant error."""
    spread_e = _spread(sums.e_square, sums.e_D, sums.tokens)
    return 1 - spread_e / _spread(sums.x_square, sums.x_D, sums.tokens)


def cosine(sums: Alignment) -> Tensor:
    """Mean over tokens of cos(x, x̂)."""
    return sums.cosines / sums.tokens


def l2_ratio(sums: Alignment) -> Tensor:
    """Mean of ‖x̂‖ / ‖x‖ over the tokens with x ≠ 0."""
    # Σ⟨x, x̂⟩ shows what a quotient hides: an infinite x has ratio 0.
    return torch.where(sums.dot.isfinite(), sums.ratios / sums.nonzero, torch.nan)


def reconstruction_bias(sums: Alignment) -> Tensor:
    """γ = Σ‖x̂‖² / Σ⟨x, x̂⟩: x̂/γ is the multiple of x̂ with the least squared error; below 1, x̂ is too short.

    Source: Rajamanoharan et al., "Improving dictionary learning with gated sparse autoencoders" (arXiv 2404.16014).
    """
    return torch.where(sums.dot.isfinite(), sums.x_hat_square / sums.dot, torch.nan)


def explained_variance_per_token(sums: PerToken) -> Tensor:
    """Mean of 1 - ‖e‖² / ‖x - mean‖² over the tokens that are not exactly at the mean, where it has no value."""
    return sums.shares / sums.tokens


def fvu_median(sums: PerToken) -> Tensor:
    """The (lower) median of ‖e‖² / ‖x - mean‖² over the tokens that are not exactly at the mean.

    It is the middle of its bin, within a factor 10^(1/1000) = 1.0023 of the exact one; 0 below 1e-8, infinite above 1e4.
    """
    edge = torch.arange(RATIO_BINS, device=sums.ratios_H.device).double() - 0.5
    values_H = 10 ** (_LOWEST + edge / _PER_DECADE)
    values_H[0], values_H[-1] = 0, torch.inf
    half = (sums.tokens + 1) // 2
    bin_ = torch.searchsorted(sums.ratios_H.cumsum(0), half).clamp_max(RATIO_BINS - 1)
    return torch.where(sums.shares.isfinite() & (sums.tokens > 0), values_H[bin_], torch.nan)


def frequency(sums: LatentSums) -> Tensor:
    """The share of tokens on which each latent fires: (F,) float64, NaN once a latent was not finite."""
    frequency_F = sums.fired_F.double() / sums.tokens
    return torch.where(sums.magnitude.isfinite(), frequency_F, torch.nan)


def l0(sums: LatentSums) -> Tensor:
    """Mean number of latents that are not 0 per token."""
    return torch.where(sums.magnitude.isfinite(), sums.fired_F.sum().double() / sums.tokens, torch.nan)


def l1(sums: LatentSums) -> Tensor:
    """Mean Σ |f| per token."""
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


def _zero(x: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Where a sum over x begins."""
    return torch.zeros((), dtype=dtype, device=_wide_device(x))


def _count(x: Tensor) -> Tensor:
    return torch.tensor(len(x), device=_wide_device(x))


def _expect_rows(name: str, x: Tensor) -> None:
    if x.ndim != 2:
        raise UserError(f"{name} has shape {tuple(x.shape)}: flatten it to (rows, width)")


def _expect_same(x: Tensor, x_hat: Tensor) -> None:
    _expect_rows("x", x)
    if x.shape != x_hat.shape:
        raise UserError(f"x is {tuple(x.shape)} and x_hat {tuple(x_hat.shape)}: give one reconstruction per token")
