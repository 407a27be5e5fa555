"""All that is kept of one SAE's latents while rows stream past: a fixed number of bytes a latent, whatever the rows.

Shapes: B rows of a piece, F d_sae, P peaks, W tokens of a context.
"""

from collections.abc import Iterator

import numpy as np

from saelight.latents import latents_format as layout
from saelight.latents.best_kept import BestKept
from saelight.latents.cofiring import RowSample
from saelight.latents.firings import Peaks, chances, firings, octaves, peaks
from saelight.latents.token_counts import TokenCounts
from saelight.latents.windowed_rows import Piece

_HEADROOM = 3
"""Octaves of the histogram above the largest activation of the first piece."""
_SILENT = -(1 << 14)
"""The highest octave of a latent that has not fired: below all there are."""
_OFFSETS_W = np.arange(-layout.BEFORE, layout.AFTER + 1)


class LatentRecord:
    """The statistics of one SAE's latents, to which pieces of rows are added in their order.

    `save` gives all of it as arrays by name, which `restore` takes.
    """

    def __init__(self, d_sae: int, seed: int) -> None:
        self.d_sae, self.seed = d_sae, seed
        self.next_row = 0
        """Rows before it are in."""
        self.lowest_octave: int | None = None
        self.fired_F = np.zeros(d_sae, dtype=np.int64)
        self.total_F = np.zeros(d_sae)
        self.histogram_FH = np.zeros((d_sae, layout.OCTAVES), dtype=np.int32)
        columns: dict[str, tuple[str, tuple[int, ...]]] = {
            "rows": ("int32", ()),
            "values": ("float32", ()),
            "activations": ("uint8", (layout.WINDOW,)),
        }
        self.top = BestKept(d_sae, layout.TOP, columns)
        # An octave's place is its number modulo INTERVALS: when a latent's maximum rises, the lowest octave makes room.
        self.samples = BestKept(d_sae * layout.INTERVALS, layout.SAMPLES, columns)
        self.highest_F = np.full(d_sae, _SILENT, dtype=np.int16)
        self.tokens = TokenCounts(d_sae)
        self.rows = RowSample(d_sae, seed)

    def add(self, piece: Piece, f_BF: np.ndarray) -> None:
        """Add the latents (B, F), float32, of the piece's rows."""
        found = firings(f_BF)
        if self.lowest_octave is None:
            largest = int(octaves(np.abs(found.values_E).max(initial=0.0)[None])[0])
            self.lowest_octave = largest + _HEADROOM + 1 - layout.OCTAVES
        np.add.at(self.fired_F, found.latents_E, 1)
        np.add.at(self.total_F, found.latents_E, np.abs(found.values_E))
        octaves_E = np.clip(octaves(found.values_E) - self.lowest_octave, 0, layout.OCTAVES - 1)
        np.add.at(self.histogram_FH.reshape(-1), found.latents_E * layout.OCTAVES + octaves_E, 1)
        if piece.tokens_B is not None:
            self.tokens.add(found.latents_E, piece.tokens_B[found.rows_E])
        self.rows.add(found, piece.start, len(f_BF))
        strongest = peaks(found, piece.windows_B)
        sizes_P = np.abs(strongest.values_P)
        self._put(self.top, strongest.latents_P, sizes_P, strongest, piece, f_BF)
        self._sample(strongest, sizes_P, piece, f_BF)
        self.next_row = piece.start + len(f_BF)

    def _sample(self, strongest: Peaks, sizes_P: np.ndarray, piece: Piece, f_BF: np.ndarray) -> None:
        octaves_P = octaves(sizes_P).astype(np.int16)
        before_F = self.highest_F.copy()
        np.maximum.at(self.highest_F, strongest.latents_P, octaves_P)
        raised = np.flatnonzero((self.highest_F > before_F) & (before_F > _SILENT))
        owners = (raised[:, None] * layout.INTERVALS + np.arange(layout.INTERVALS)).reshape(-1)
        held = octaves(self.samples.columns["values"][owners, 0])
        self.samples.drop(owners[held <= np.repeat(self.highest_F[raised], layout.INTERVALS) - layout.INTERVALS])
        near = np.flatnonzero(octaves_P > self.highest_F[strongest.latents_P] - layout.INTERVALS)
        strongest = Peaks(*(column[near] for column in strongest))
        owners_P = strongest.latents_P * layout.INTERVALS + octaves_P[near] % layout.INTERVALS
        chances_P = chances(self.seed, strongest.latents_P + 1, strongest.rows_P + piece.start)
        self._put(self.samples, owners_P, chances_P, strongest, piece, f_BF)

    def _put(
        self, kept: BestKept, owners_P: np.ndarray, scores_P: np.ndarray, strongest: Peaks, piece: Piece, f_BF: np.ndarray
    ) -> None:
        chosen = kept.chosen(owners_P, scores_P)
        latents_P, rows_P, values_P = (column[chosen] for column in strongest)
        kept.put(
            owners_P[chosen],
            scores_P[chosen],
            rows=(rows_P + piece.start).astype(np.int32),
            values=values_P,
            activations=_around(f_BF, piece.windows_B, rows_P, latents_P, values_P),
        )

    def intervals(self) -> np.ndarray:
        """The owners in `samples` of each latent's octaves, the highest first: int64 (F, I)."""
        octaves_FI = self.highest_F[:, None].astype(np.int64) - np.arange(layout.INTERVALS)
        return np.arange(self.d_sae)[:, None] * layout.INTERVALS + octaves_FI % layout.INTERVALS

    def arrays(self) -> dict[str, np.ndarray]:
        """All of its memory, by name."""
        return dict(self._arrays())

    def _arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        for name in ("fired_F", "total_F", "histogram_FH", "highest_F"):
            yield name, getattr(self, name)
        for kind in ("top", "samples"):
            kept: BestKept = getattr(self, kind)
            yield f"{kind}.scores", kept.scores_OK
            yield from ((f"{kind}.{name}", column) for name, column in kept.columns.items())
        for name in ("ids_FM", "counts_FM", "error_F"):
            yield f"tokens.{name}", getattr(self.tokens, name)
        for name in ("chances_S", "sizes_S", "latents_E"):
            yield f"rows.{name}", getattr(self.rows, name)

    def restore(self, arrays: dict[str, np.ndarray], next_row: int, lowest_octave: int | None, share: float) -> None:
        """Go on from what `arrays` gave. Raises `ValueError` where that is not of this SAE."""
        for name, own in self._arrays():
            given = arrays[name]
            grows = name.startswith("rows.")
            if given.dtype != own.dtype or (given.shape != own.shape and not grows):
                raise ValueError(f"{name} is {given.dtype} {given.shape}, not {own.dtype} {own.shape}")
            if grows:
                setattr(self.rows, name.removeprefix("rows."), given)
            else:
                own[...] = given
        self.next_row, self.lowest_octave, self.rows.share = next_row, lowest_octave, share


def _around(
    f_BF: np.ndarray, windows_B: np.ndarray, rows_P: np.ndarray, latents_P: np.ndarray, values_P: np.ndarray
) -> np.ndarray:
    """Each latent's activations beside a row in the same window, in 255ths of the one there: uint8 (P, W)."""
    rows_PW = rows_P[:, None] + _OFFSETS_W
    inside_PW = (rows_PW >= 0) & (rows_PW < len(f_BF))
    rows_PW = np.clip(rows_PW, 0, len(f_BF) - 1)
    inside_PW &= windows_B[rows_PW] == windows_B[rows_P][:, None]
    shares_PW = f_BF[rows_PW, latents_P[:, None]] / values_P[:, None]
    # What fires at all is seen to, and what has the other sign is not.
    units_PW = np.where(shares_PW > 0, np.clip(np.rint(255 * shares_PW), 1, 255), 0)
    return np.where(inside_PW, units_PW, 0).astype(np.uint8)
