"""Which latents fire where, of a piece of rows: entries sorted by latent, and the strongest of each window.

Shapes: B rows, F d_sae, E entries, P peaks.
"""

from typing import NamedTuple

import numpy as np


class Firings(NamedTuple):
    """The entries of f (B, F) that are not 0, by latent, and of one latent by row."""

    latents_E: np.ndarray
    rows_E: np.ndarray
    values_E: np.ndarray
    """float32, signs kept."""


class Peaks(NamedTuple):
    """The strongest entry (the first, of equals) of each latent in each window where it fires; in the order of `Firings`."""

    latents_P: np.ndarray
    rows_P: np.ndarray
    values_P: np.ndarray


def firings(f_BF: np.ndarray) -> Firings:
    """The entries of latents (B, F), float32."""
    rows_E, latents_E = np.nonzero(f_BF != 0)
    bits = max(1, len(f_BF) - 1).bit_length()
    keys_E = (latents_E << bits) | rows_E
    keys_E.sort()
    latents_E, rows_E = keys_E >> bits, keys_E & ((1 << bits) - 1)
    return Firings(latents_E, rows_E, f_BF[rows_E, latents_E])


def peaks(found: Firings, windows_B: np.ndarray) -> Peaks:
    """The strongest of each window.

    Args:
        windows_B: The window that each row is in, a number that never goes down.
    """
    if not len(found.latents_E):
        return Peaks(*found)
    windows_E = windows_B[found.rows_E]
    begins_E = np.ones(len(windows_E), dtype=bool)
    begins_E[1:] = (found.latents_E[1:] != found.latents_E[:-1]) | (windows_E[1:] != windows_E[:-1])
    starts_P = np.flatnonzero(begins_E)
    sizes_E = np.abs(found.values_E)
    largest_P = np.maximum.reduceat(sizes_E, starts_P)
    segments_E = np.cumsum(begins_E) - 1
    equal = np.flatnonzero(sizes_E == largest_P[segments_E])
    first = np.ones(len(equal), dtype=bool)
    first[1:] = segments_E[equal[1:]] != segments_E[equal[:-1]]
    at_P = equal[first]
    return Peaks(found.latents_E[at_P], found.rows_E[at_P], found.values_E[at_P])


def octaves(values: np.ndarray) -> np.ndarray:
    """⌊log2 |value|⌋, exactly; int32. Of 0 it is -1."""
    return np.frexp(values)[1] - 1


def chances(seed: int, a: np.ndarray | int, b: np.ndarray) -> np.ndarray:
    """A uniform number in (0, 1) for each pair of whole numbers, float32: the same for the same seed, whatever the order.

    It is Steele, Lea & Flood's SplitMix64 finaliser ("Fast splittable pseudorandom number generators", 2014), run over both.
    """
    with np.errstate(over="ignore"):
        z = _mixed(np.uint64(seed % (1 << 64)) + _GOLDEN * np.asarray(a).astype(np.uint64))
        z = _mixed(z + _GOLDEN * (np.asarray(b).astype(np.uint64) + np.uint64(1)))
    # 23 bits and a half: neither 0 nor 1, and exact in float32.
    return (((z >> np.uint64(41)).astype(np.float64) + 0.5) / (1 << 23)).astype(np.float32)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mixed(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
