"""The folders that requests name, and who follows which."""

from aiohttp import web

from saelight.report.sae_row import SAERow
from saelight.serve.counted_cache import CountedCache
from saelight.serve.guards import Refused
from saelight.serve.watching import Folders, Watched

_MOST_SHOWN = 2
"""Folders side by side."""
_KEPT = 64


class Watchers:
    """One `Watched` for each folder, and for each two side by side."""

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._watched: CountedCache[Watched] = CountedCache(_KEPT)

    def watched(self, of: list[str]) -> Watched:
        """What is shown under these keys. Raises `UserError` for one that is not."""
        paths = tuple(map(self._folders.roots.find, of))
        return self._watched.get(paths, lambda: Watched(self._folders, paths))

    async def looked(self, of: list[str]) -> Watched:
        """The same, as it is now. Raises `Refused` where it cannot be read."""
        watched = self.watched(of)
        await watched.look()
        if watched.version == 0 or watched.trouble:
            raise Refused(409, watched.trouble or "the folder cannot be read")
        return watched

    async def row(self, of: list[str], number: str | int) -> SAERow:
        """An SAE by its number in the document. Raises `Refused` for one that none has."""
        rows = (await self.looked(of)).rows
        text = str(number)
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < len(rows)):
            raise Refused(404, f"no SAE {text[:50]!r}: give 0 to {len(rows) - 1}")
        return rows[int(text)]


def keys(request: web.Request, most: int = _MOST_SHOWN) -> list[str]:
    """What a request names, as `of=a&of=b`. Raises `Refused` for none, too many, or the same twice."""
    given = request.query.getall("of", [])
    if not 0 < len(given) <= most:
        two = "; two side by side, as of=a&of=b" if most > 1 else ""
        raise Refused(400, f"name a run or a sweep, as of=quickstart{two}: GET /api/folders lists them")
    if len(set(given)) < len(given):
        raise Refused(400, f"{given[0][:100]} is compared with itself: name another one")
    return given
