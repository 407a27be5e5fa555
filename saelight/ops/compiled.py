"""Loops that torch has no operator for, compiled by numba where it is installed (extra `compiled`).

Each has a stand-in of torch and numpy operators (`select.py`, `bags.py`), which the tests hold it against and which runs
where numba is missing. NaN counts as larger than everything. Shapes: C rows of a chunk, F d_sae, E entries, K kept per row.
"""

import numba
import numpy as np

_WIDTH = 16  # latents looked at together; processors compare so many at once
_GROUPS = 4  # of latents for each one kept: the k-th largest of their maxima is just below the k-th largest of all
_HALVINGS = 12


# fastmath only where sums may be taken in another order; everything else is exact.
@numba.njit(nogil=True, cache=True)
def above(z_CF, bound_C, bound_F, low, high, places_E):
    """Places in z of what exceeds bound_C[c] + bound_F[i], of rows low … high; returns their number."""
    F, n = z_CF.shape[1], 0
    for c in range(low, high):
        z, b = z_CF[c], bound_C[c]
        for block in range(F // _WIDTH):
            zs, bs = z[_WIDTH * block : _WIDTH * (block + 1)], bound_F[_WIDTH * block : _WIDTH * (block + 1)]
            below = np.int32(0)
            for i in range(_WIDTH):
                below += np.int32(zs[i] <= bs[i] + b)
            if below < _WIDTH:
                # Written whether it stays or not: a branch here would be guessed wrong half of the time.
                for i in range(_WIDTH):
                    places_E[n] = c * F + _WIDTH * block + i
                    n += not zs[i] <= bs[i] + b
        for i in range(F // _WIDTH * _WIDTH, F):
            if not z[i] <= bound_F[i] + b:
                places_E[n] = c * F + i
                n += 1
    return n


@numba.njit(nogil=True, cache=True)
def _bound(z, maxima, k):
    """A bound that at least k of z reach, and few more."""
    groups = len(maxima)
    maxima[:] = -np.inf
    for row in range(len(z) // groups):
        zs = z[groups * row : groups * (row + 1)]
        for i in range(groups):
            maxima[i] = zs[i] if zs[i] > maxima[i] else maxima[i]
    low, high = maxima.min(), maxima.max()
    for _ in range(_HALVINGS):
        middle, reach = low + (high - low) / 2, np.int32(0)
        for i in range(groups):
            reach += np.int32(maxima[i] >= middle)
        if reach >= k:
            low = middle
        else:
            high = middle
    return low


@numba.njit(nogil=True, cache=True)
def _reaching(z, bound, places):
    """The places in z of what is not below the bound; -1 where they are more than `places` holds."""
    n, room = 0, len(places) - _WIDTH
    for block in range(len(z) // _WIDTH):
        zs, below = z[_WIDTH * block : _WIDTH * (block + 1)], np.int32(0)
        for i in range(_WIDTH):
            below += np.int32(zs[i] < bound)
        if below < _WIDTH:
            if n > room:
                return -1
            for i in range(_WIDTH):
                places[n] = _WIDTH * block + i
                n += not zs[i] < bound
    for i in range(len(z) // _WIDTH * _WIDTH, len(z)):
        if not z[i] < bound:
            if n == len(places):
                return -1
            places[n] = i
            n += 1
    return n


@numba.njit(nogil=True, cache=True)
def largest(z_CF, k, low, high, places_CK):
    """Places in z of the k largest of each row, low … high, ascending; of equal ones the first.

    Returns False, with nothing of use, where too many of a row are equal or NaN.
    """
    maxima, places = np.empty(_GROUPS * k, np.float32), np.empty(8 * k + _WIDTH, np.int64)
    for c in range(low, high):
        z = z_CF[c]
        n = _reaching(z, _bound(z, maxima, k), places)
        if n < k:
            return False
        while n > k:
            least = 0
            for j in range(1, n):
                value, so_far = z[places[j]], z[places[least]]
                if value <= so_far or so_far != so_far:
                    least = j
            for j in range(least, n - 1):
                places[j] = places[j + 1]
            n -= 1
        for j in range(k):
            places_CK[c, j] = places[j] + c * z_CF.shape[1]
    return True


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def dots(left_ND, bags_E, right_RD, rows_E, low, high, out_E):
    """out[e] = left[bags[e]] · right[rows[e]], of entries low … high."""
    for e in range(low, high):
        left, right = left_ND[bags_E[e]], right_RD[rows_E[e]]
        total = np.float32(0)
        for d in range(len(left)):
            total += left[d] * right[d]
        out_E[e] = total


@numba.njit(nogil=True, cache=True)
def sort(latents_E, starts_F, order_E):
    """Entries by latent, equal ones in their order (a counting sort), and where each latent's begin: zeros before."""
    for i in latents_E:
        starts_F[i + 1] += 1
    for i in range(1, len(starts_F)):
        starts_F[i] += starts_F[i - 1]
    after_F = starts_F[:-1].copy()
    for e in range(len(latents_E)):
        order_E[after_F[latents_E[e]]] = e
        after_F[latents_E[e]] += 1
