"""The decoder rows nearest to each of an SAE's, within it and across others, a block of cosines at a time.

Shapes: F d_sae, D d_out, N neighbours.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

_BLOCK = 1 << 23
"""Cosines at a time: 32 MB."""


class Kin(NamedTuple):
    """By latent: the nearest ones and their cosines, the nearest first; -1 and 0 where there are fewer."""

    latents_FN: np.ndarray
    cosines_FN: np.ndarray


class FarKin(NamedTuple):
    """By latent: the nearest one of each of the nearest N other SAEs, numbered as they were given."""

    saes_FN: np.ndarray
    latents_FN: np.ndarray
    cosines_FN: np.ndarray


@torch.inference_mode()
def within(W_dec_FD: Tensor, n: int) -> Kin:
    """The n nearest of the same SAE, itself left out."""
    rows_FD = normalize(W_dec_FD.float(), dim=1)
    F = len(rows_FD)
    found = Kin(np.full((F, n), -1, dtype=np.int32), np.zeros((F, n), dtype=np.float32))
    size = max(1, _BLOCK // F)
    for start in range(0, F, size):
        cosines = rows_FD[start : start + size] @ rows_FD.T
        block = torch.arange(len(cosines))
        cosines[block, start + block] = -2
        best = cosines.topk(min(n, F - 1), dim=1)
        found.latents_FN[start : start + size, : F - 1] = best.indices.numpy()
        found.cosines_FN[start : start + size, : F - 1] = best.values.numpy()
    return found


@torch.inference_mode()
def across(W_dec_FD: Tensor, others: Sequence[Tensor], n: int) -> FarKin:
    """The nearest latent of each other SAE, of the n SAEs where it is nearest; those of another width are left out."""
    rows_FD = normalize(W_dec_FD.float(), dim=1)
    F = len(rows_FD)
    found = FarKin(
        np.full((F, n), -1, dtype=np.int32), np.full((F, n), -1, dtype=np.int32), np.full((F, n), -2, dtype=np.float32)
    )
    for number, other in enumerate(others):
        if other.shape[1] != rows_FD.shape[1]:
            continue
        nearest = _nearest(rows_FD, normalize(other.float(), dim=1))
        cosines = np.concatenate([found.cosines_FN, nearest.cosines_FN], axis=1)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :n]
        for kept, new in zip(found, (np.full((F, 1), number, dtype=np.int32), *nearest), strict=True):
            kept[:] = np.take_along_axis(np.concatenate([kept, new], axis=1), order, axis=1)
    found.cosines_FN[found.saes_FN < 0] = 0
    return found


def _nearest(rows_FD: Tensor, others_GD: Tensor) -> Kin:
    best = [(block @ others_GD.T).max(1) for block in rows_FD.split(max(1, _BLOCK // len(others_GD)))]
    latents = torch.cat([found.indices for found in best]).int().numpy()
    return Kin(latents[:, None], torch.cat([found.values for found in best]).numpy()[:, None])
