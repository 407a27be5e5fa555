"""What the latents of served SAEs fire on: one of them, those of an SAE in an order, or a search over all SAEs."""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.report.sae_row import SAERow
from saelight.serve.counted_cache import CountedCache

_OPEN = 64
"""SAEs whose latents are kept open: their tensors are mapped, and read when asked for."""
_SEARCHES = 256
_PATIENCE = 20.0
"""Seconds of a search over all SAEs, after which what was found so far is told."""
_CONTEXTS = 5
"""Of a latent in a list of many."""


class ServedLatents:
    """Reads latents that `saelight latents collect` has written."""

    def __init__(self) -> None:
        self.open: CountedCache[Any] = CountedCache(_OPEN)
        self.searches: CountedCache[list[Any]] = CountedCache(_SEARCHES)
        self._turn = threading.Lock()

    def of(self, row: SAERow) -> Any:
        """The latents of an SAE. Raises `UserError` where none are known."""
        folder, stamp = latents_stamp(row)
        if folder is None or stamp is None:
            raise UserError(f"nothing is known of the latents of {row.name} yet: saelight latents collect {row.run}")
        from saelight.latents.latents_reading import read

        return self.open.get((folder, stamp), lambda: read(folder))

    def latent(self, row: SAERow, number: int) -> dict[str, Any]:
        """All that is known of one latent."""
        latent = self.of(row)[number]
        found: dict[str, Any] = latent.as_dict()
        return found

    def listed(self, row: SAERow, sort: str, limit: int) -> list[dict[str, Any]]:
        """An SAE's latents by `density`, `max` or `similarity`, the largest first."""
        from saelight.latents.latent_search import order

        latents = self.of(row)
        return [_brief(latents, int(i), 0) for i in order(latents, sort)[:limit]]

    def search(self, rows: Iterable[tuple[int, SAERow]], text: str, limit: int) -> dict[str, Any]:
        """The latents of all these SAEs that fire on a text, the best first: `found`, and how many SAEs were `searched` of
        how many that have latents with texts (`of`)."""
        known = [(i, row) for i, row in rows if latents_stamp(row)[1] is not None]
        matches: list[tuple[float, int, Any, Any]] = []
        searched, unreadable = 0, []
        with self._turn:  # a search takes all of a core: two at once are no faster
            end = time.monotonic() + _PATIENCE
            for i, row in known:
                if time.monotonic() > end:
                    break
                try:
                    latents = self.of(row)
                    found = self._search(row, latents, text)
                except UserError as error:
                    unreadable.append(f"{row.name}: {error}")
                    continue
                searched += 1
                matches += [(match.score, i, latents, match) for match in found[:limit]]
        matches.sort(key=lambda one: (-one[0], one[1], one[3].latent))
        return {
            "found": [
                {"id": i, "score": round(score, 4)} | _brief(latents, match.latent, match.context)
                for score, i, latents, match in matches[:limit]
            ],
            "searched": searched,
            "of": len(known),
            "problems": unreadable[:_CONTEXTS],
        }

    def _search(self, row: SAERow, latents: Any, text: str) -> list[Any]:
        from saelight.latents.latent_search import search

        return self.searches.get((*latents_stamp(row), text.casefold()), lambda: search(latents, text)[:_SEARCHES])


def latents_stamp(row: SAERow) -> tuple[Path | None, int | None]:
    """The folder of an SAE, and when its latents were last written; None where there are none."""
    folder = row.inside("saes")
    try:
        return folder, None if folder is None else (folder / "latents" / "latents.json").stat().st_mtime_ns
    except OSError:
        return folder, None


def _brief(latents: Any, number: int, context: int) -> dict[str, Any]:
    """A latent in a list: what it fires on, in one context."""
    latent = latents[number]
    shown = latent.top[context : context + 1] or latent.top[:1]
    tokens = shown[0].tokens if shown else ()
    return {
        "latent": number,
        "density": latent.density,
        "maximum": latent.maximum,
        "tokens": [token.text for token in latent.tokens[:_CONTEXTS]],
        "context": [{"text": t.text, "activation": t.activation, "after_gap": t.after_gap} for t in tokens],
    }
