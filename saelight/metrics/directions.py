"""What the weights alone tell: how well known directions are recovered, how alike the decoder's rows are.

Cosines are made a block at a time, in float32 or better; means are taken in float64. A zero row has cosine 0 with
everything, a row with a NaN makes the result NaN. A latent that may be negative (`signed`) stands for its direction and
for the opposite one: |cos| takes the place of cos.

Shapes: D d_in, F d_sae, G ground-truth features, P matched pairs.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from saelight.errors import UserError

_BLOCK = 2**24  # cosines at a time: 64 MB in float32


class Matching(NamedTuple):
    """Pairs of a known direction and a latent."""

    feature_P: Tensor  # int64, rows of the known directions
    latent_P: Tensor  # int64, rows of the decoder
    cosine_P: Tensor  # float64, with its sign


@torch.no_grad()
def mmcs(truth_GD: Tensor, W_dec_FD: Tensor, signed: bool = False, block_elements: int = _BLOCK) -> Tensor:
    """Mean max cosine similarity, mean_i max_j cos(g_i, d_j): how well the dictionary recovers known directions.

    Raises:
        UserError: widths differ, or one of the two is empty.
    Source: Sharkey, Braun & Millidge, "Taking features out of superposition with sparse autoencoders" (2022).
    """
    cosine_G = nearest(truth_GD, W_dec_FD, signed, block_elements).cosine_P
    return (cosine_G.abs() if signed else cosine_G).mean()


@torch.no_grad()
def nearest(truth_GD: Tensor, W_dec_FD: Tensor, signed: bool = False, block_elements: int = _BLOCK) -> Matching:
    """The latent nearest to each known direction, by cosine; one latent may be nearest to several.

    Raises:
        UserError: widths differ, or one of the two is empty.
    """
    found = []
    for cos in _cosine_blocks(truth_GD, W_dec_FD, block_elements):
        latent = (cos.abs() if signed else cos).argmax(1)
        found.append((latent, cos.gather(1, latent[:, None]).squeeze(1)))
    latent_G, cosine_G = map(torch.cat, zip(*found, strict=True))
    return Matching(torch.arange(len(latent_G), device=latent_G.device), latent_G, _wide(cosine_G))


@torch.no_grad()
def one_to_one(truth_GD: Tensor, W_dec_FD: Tensor, block_elements: int = _BLOCK) -> Matching:
    """The matching of min(G, F) pairs, each direction and each latent in one at most, that has the largest Σ |cos|.

    scipy's Hungarian algorithm (Crouse 2016) on the CPU: 8·G·F bytes and, at worst, cubic time. At G = F = 16,384 that
    is 2.1 GB, and 1 s for a dictionary that found the directions, 30 s for a random one.

    Raises:
        UserError: widths differ, one of the two is empty, or not finite.
    """
    # Each row of the costs belongs to one of the fewer, and costs are negative already, so that scipy makes no copy.
    fewer, more = (truth_GD, W_dec_FD) if len(truth_GD) <= len(W_dec_FD) else (W_dec_FD, truth_GD)
    cost, filled = np.empty((len(fewer), len(more))), 0
    for cos in _cosine_blocks(fewer, more, block_elements):
        cost[filled : filled + len(cos)] = cos.abs().neg_().cpu().numpy()
        filled += len(cos)
    if not np.isfinite(cost.sum()):
        raise UserError("the directions or W_dec have numbers that are not finite: no matching exists")
    pairs = [torch.from_numpy(index) for index in linear_sum_assignment(cost)]
    feature_P, latent_P = pairs if fewer is truth_GD else pairs[::-1]
    feature_P, latent_P = feature_P.to(truth_GD.device), latent_P.to(W_dec_FD.device)
    return Matching(feature_P, latent_P, cosine_similarity(_wide(truth_GD[feature_P]), _wide(W_dec_FD[latent_P])))


def mcc(truth_GD: Tensor, W_dec_FD: Tensor) -> Tensor:
    """Mean |cos| over the best one-to-one matching of known directions and latents; see `one_to_one` for its cost.

    With G ≠ F the mean is over the min(G, F) pairs there are: the rest is not counted against the dictionary. NaN where
    either is not finite.

    Source: O'Neill, Gumran & Klindt, "Compute optimal inference and provable amortisation gap in sparse autoencoders"
    (arXiv 2411.13117), after the mean correlation coefficient of independent component analysis.
    """
    if not (truth_GD.isfinite().all() and W_dec_FD.isfinite().all()):
        return torch.tensor(torch.nan, dtype=torch.float64, device=W_dec_FD.device)
    return one_to_one(truth_GD, W_dec_FD).cosine_P.abs().mean()


def weight_correlation(W_enc_DF: Tensor, W_dec_FD: Tensor, alive_F: Tensor | None = None) -> Tensor:
    """Mean over alive latents (default: all) of cos(W_enc[:, i], W_dec[i]); NaN when none is alive.

    Raises:
        UserError: the two are not each other's transpose in shape, as in a transcoder between unequal widths.
    """
    cosine_F = own_cosines(W_enc_DF, W_dec_FD)
    return (cosine_F if alive_F is None else cosine_F[alive_F.to(cosine_F.device)]).mean()


@torch.no_grad()
def own_cosines(W_enc_DF: Tensor, W_dec_FD: Tensor, block_elements: int = _BLOCK) -> Tensor:
    """Each latent's cos(W_enc[:, i], W_dec[i]): float64 (F,).

    Raises:
        UserError: as `weight_correlation`.
    """
    if W_enc_DF.T.shape != W_dec_FD.shape:
        raise UserError(
            f"W_enc is {tuple(W_enc_DF.shape)} and W_dec {tuple(W_dec_FD.shape)}: cosines between them need "
            "(D, F) and (F, D)"
        )
    blocks = (directions.split(max(1, block_elements // W_dec_FD.shape[1])) for directions in (W_enc_DF.T, W_dec_FD))
    return torch.cat([cosine_similarity(_wide(enc), _wide(dec)) for enc, dec in zip(*blocks, strict=True)])


@torch.no_grad()
def coherence(W_dec_FD: Tensor, block_elements: int = _BLOCK) -> Tensor:
    """max_{i≠j} |cos(d_i, d_j)|, 0 for a single latent: of two latents that are copies of each other it is 1."""
    largest, start = [], 0
    for cos in _cosine_blocks(W_dec_FD, W_dec_FD, block_elements):
        rows = torch.arange(len(cos), device=cos.device)
        cos[rows, start + rows] = 0
        largest.append(cos.abs().amax())
        start += len(cos)
    return _wide(torch.stack(largest)).amax()


def _cosine_blocks(a_ND: Tensor, b_MD: Tensor, block_elements: int) -> Iterator[Tensor]:
    """The (N, M) cosines, some rows at a time."""
    for directions in (a_ND, b_MD):
        if directions.ndim != 2:
            raise UserError(f"directions of shape {tuple(directions.shape)}: give them as rows, (count, width)")
    if a_ND.shape[1] != b_MD.shape[1]:
        raise UserError(f"directions of width {a_ND.shape[1]} and {b_MD.shape[1]}: give both in one space")
    if not len(a_ND) or not len(b_MD):
        raise UserError(f"{len(a_ND)} directions against {len(b_MD)}: give at least one of each")
    dtype = torch.promote_types(torch.promote_types(a_ND.dtype, b_MD.dtype), torch.float32)
    b_DM = normalize(b_MD.to(dtype), dim=1).T
    a_ND = normalize(a_ND.to(b_DM), dim=1)
    for rows in a_ND.split(max(1, block_elements // len(b_MD))):
        yield rows @ b_DM


def _wide(x: Tensor) -> Tensor:
    """Float64, on the CPU where the device has none."""
    return (x.cpu() if x.device.type == "mps" else x).double()
