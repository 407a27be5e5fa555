"""What a page says of an SAE's latents: those of a bounded number, with their contexts; the others are in their file."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelight.errors import UserError

if TYPE_CHECKING:
    from saelight.latents.known_latent import Context, Latent
    from saelight.latents.latents_reading import Latents

LARGEST = 8_000_000
"""Characters of all latents on a page."""
MOST = 48
"""Latents of one SAE."""
_TOP, _DRAWN = 5, 1
"""Contexts of a latent: the strongest, and those of each interval below its maximum."""
_RELATED, _TOKENS = 4, 6
_DIGITS = 4
_META = "latents/latents.json"


def has_latents(folder: Path | None) -> bool:
    """Whether an SAE's latents were collected."""
    return folder is not None and (folder / _META).is_file()


def latents_of(folder: Path, share: float) -> dict[str, Any]:
    """What the page shows of the latents of the SAE in `folder`: as many as have room, evenly spaced among those that fire
    by how often they do.

    Args:
        share: Characters that there is room for.
    """
    # numpy and pydantic: only where there is something to read.
    from saelight.latents.latents_reading import read

    try:
        latents = read(folder)
        alive = [i for i, fired in enumerate(latents.column("fired").tolist()) if fired]
        by_density = sorted(alive, key=lambda i: (-latents.densities[i], i))
        chosen = _within(latents, by_density, share)
    except UserError as error:
        return {"problem": str(error)}
    return {
        "problem": None,
        "rows": latents.rows,
        "of": len(latents),
        "alive": len(alive),
        "path": str(latents.path.resolve()),
        "list": chosen,
    }


def _within(latents: "Latents", ordered: list[int], share: float) -> list[dict[str, Any]]:
    """As many as have room, but at least one; half as many as long as they have not."""
    most = min(MOST, len(ordered))
    while most:
        places = [round(k * (len(ordered) - 1) / max(1, most - 1)) for k in range(most)]
        found = [_latent(latents[ordered[place]]) for place in places]
        if most == 1 or len(json.dumps(found, separators=(",", ":"))) <= share:
            return found
        most //= 2
    return []


def _latent(latent: "Latent") -> dict[str, Any]:
    drawn = [context for interval in latent.samples for context in interval.contexts[:_DRAWN]]
    return {
        "i": latent.index,
        "density": _short(latent.density),
        "max": _short(latent.maximum),
        "tokens": [[token.text, token.count] for token in latent.tokens[:_TOKENS]],
        "near": [[None, one.latent, _short(one.cosine)] for one in latent.near[:_RELATED]],
        "across": [[one.sae, one.latent, _short(one.cosine)] for one in latent.across[:_RELATED]],
        "together": [[None, one.latent, _short(one.cosine)] for one in latent.together[:_RELATED]],
        "promoted": [one.text for one in latent.promoted[:_TOKENS]],
        "suppressed": [one.text for one in latent.suppressed[:_TOKENS]],
        "histogram": [[_short(low), count] for low, count in latent.histogram],
        "top": [_context(context) for context in latent.top[:_TOP]],
        "drawn": [_context(context) for context in drawn],
    }


def _context(context: "Context") -> dict[str, Any]:
    """The value, the place of the strongest token, the texts, and by place the activations (hundredths of the strongest) and
    gaps that there are."""
    found: dict[str, Any] = {"v": _short(context.value), "p": context.peak, "t": [token.text for token in context.tokens]}
    found["a"] = {i: round(100 * t.activation / context.value) for i, t in enumerate(context.tokens) if t.activation}
    if gaps := [i for i, token in enumerate(context.tokens) if token.after_gap]:
        found["g"] = gaps
    if not any(found["t"]):
        found["row"] = context.row
    return found


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
