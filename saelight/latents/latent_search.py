"""Finding latents by what they fire on, and putting them in order."""

from typing import NamedTuple

import numpy as np

from saelight.errors import UserError
from saelight.latents.latents_reading import Latents

SORTS = ("density", "max", "similarity")
"""How latents can be ordered: by how often they fire, how strongly, how near another one of the SAE is to them."""
_LOOKED_AT = 5
"""Top contexts of each latent in which a text is looked for: among 65,536 latents it takes some seconds."""


class Match(NamedTuple):
    """A latent that fires on a text."""

    latent: int
    score: float
    """How much of the latent is about the text, in [0, 2]: the share of its firings on tokens that hold it, and the mean
    over its strongest contexts of the relative activation on it."""
    context: int
    """The place in `top` of the context where it fires on the text most; 0 where it is in none of those looked at."""


def order(latents: Latents, sort: str) -> np.ndarray:
    """All latents' numbers, the largest first by one of `SORTS`; silent ones last, and of equals the lower number first."""
    values = {"density": latents.densities, "max": latents.maxima, "similarity": latents.similarities}[sort]
    alive = latents.column("fired") > 0
    return np.lexsort((np.arange(len(latents)), -values, ~alive))


def search(latents: Latents, text: str) -> list[Match]:
    """The latents that fire on `text`, whatever its case, the best first.

    Raises:
        UserError: The latents have no texts, or none is asked for.
    """
    wanted = text.casefold()
    if not wanted.strip():
        raise UserError("nothing to search for: give a text, as --search tuple")
    if not latents.texts:
        raise UserError(f"{latents.path} has no texts of tokens to search: collect over data with token ids, or --tokenizer")
    ids_FT, counts_FT = latents.column("tokens.ids"), latents.column("tokens.counts")
    holding = np.array([id for id, piece in latents.texts.items() if wanted.strip() in piece.casefold()], dtype=np.int64)
    scores_F = (counts_FT * np.isin(ids_FT, holding)).sum(1) / np.maximum(1, latents.column("fired"))
    shares_FC = _shares(latents, wanted)
    scores_F += shares_FC.mean(1)
    found = np.flatnonzero(scores_F > 0)
    ordered = found[np.argsort(-scores_F[found], kind="stable")]
    return [Match(int(i), float(scores_F[i]), int(shares_FC[i].argmax())) for i in ordered]


def _shares(latents: Latents, wanted: str) -> np.ndarray:
    """The largest relative activation on the text in each of the strongest contexts: (F, C)."""
    tokens_FCW = latents.column("top.tokens")[:, :_LOOKED_AT]
    units_FCW = latents.column("top.activations")[:, :_LOOKED_AT]
    shares_FC = np.zeros(tokens_FCW.shape[:2])
    pieces = {id: latents.text(id).casefold() for id in np.unique(tokens_FCW).tolist()} | {-1: ""}
    for i, contexts in enumerate(tokens_FCW.tolist()):
        for c, ids in enumerate(contexts):
            joined = [pieces[id] for id in ids]
            start = (whole := "".join(joined)).find(wanted)
            while start >= 0:
                ends = np.cumsum([len(piece) for piece in joined])
                over = (ends > start) & (ends - [len(piece) for piece in joined] < start + len(wanted))
                shares_FC[i, c] = max(shares_FC[i, c], units_FCW[i, c][over].max(initial=0) / 255)
                start = whole.find(wanted, start + 1)
    return shares_FC
