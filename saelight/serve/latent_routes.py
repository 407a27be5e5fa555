"""What latents fire on, and own texts."""

import asyncio
from typing import Any

from aiohttp import web

from saelight.report.sae_row import SAERow
from saelight.serve import answers
from saelight.serve.guards import Refused, json_of, one, read_body
from saelight.serve.openapi import Query, Route
from saelight.serve.served_latents import ServedLatents
from saelight.serve.text_trials import TextTrials
from saelight.serve.watchers import Watchers, keys

_MOST = 200
"""Latents in one answer."""
_LONGEST = 200
"""Characters that are searched for."""
_SORTS = ("density", "max", "similarity")
_OF = Query("of", "the key of a run or a sweep; of two that are seen side by side, both", required=True, repeated=True)
_ID = Query("id", "the number of an SAE in the document", required=True)
_LIMIT = Query("limit", f"the most latents, up to {_MOST}; 50 by default")


class LatentRoutes:
    """The handlers.

    Args:
        watchers: The folders that a request names.
    """

    def __init__(self, watchers: Watchers) -> None:
        self._watchers = watchers
        self.latents, self.trials = ServedLatents(), TextTrials()
        self.routes = [
            Route(
                "GET",
                "/api/latents",
                "an SAE's latents, in an order",
                self.listed,
                answers.LatentList,
                query=(_OF, _ID, Query("sort", "density, max or similarity"), _LIMIT),
            ),
            Route(
                "GET",
                "/api/latents/search",
                "the latents of all SAEs that fire on a text",
                self.search,
                answers.LatentList,
                query=(_OF, Query("text", "what to search for", required=True), _LIMIT),
            ),
            Route(
                "GET",
                "/api/latents/{latent}",
                "one latent (docs/latents.md)",
                self.latent,
                "application/json",
                query=(_OF, _ID),
            ),
            Route("POST", "/api/text", "an own text on an SAE", self.text, answers.TextAnswer, answers.TextRequest),
        ]

    async def listed(self, request: web.Request) -> web.Response:
        row, sort = await self._row(request), request.query.get("sort", "density")
        if sort not in _SORTS:
            raise Refused(400, f"sort is {sort[:50]!r}: give {', '.join(_SORTS)}")
        found = await asyncio.to_thread(self.latents.listed, row, sort, _limit(request))
        number = int(one(request, "id"))
        return _list({"found": [{"id": number} | latent for latent in found], "searched": 1, "of": 1, "problems": []})

    async def search(self, request: web.Request) -> web.Response:
        text, limit = one(request, "text"), _limit(request)
        if not text.strip() or len(text) > _LONGEST:
            raise Refused(400, f"search for a text of 1 to {_LONGEST} characters, as text=tuple")
        watched = await self._watchers.looked(keys(request))
        return _list(await asyncio.to_thread(self.latents.search, list(enumerate(watched.rows)), text, limit))

    async def latent(self, request: web.Request) -> web.Response:
        row, number = await self._row(request), request.match_info["latent"]
        if not (number.isascii() and number.isdecimal() and len(number) < 10):
            raise Refused(404, f"no latent {number[:50]!r}: give its number")
        return web.json_response(await asyncio.to_thread(self.latents.latent, row, int(number)))

    async def text(self, request: web.Request) -> web.Response:
        asked = await read_body(request, answers.TextRequest)
        row = await self._watchers.row([asked.of], asked.id)
        folder = row.inside("saes")
        if folder is None or not (folder / "config.json").is_file():
            raise Refused(409, f"{row.name} is not exported yet: text can be tried when its training has ended")
        stamp = (folder / "config.json").stat().st_mtime
        found = await self.trials.read(str(folder), stamp, asked.text, asked.latents)
        return json_of(answers.TextAnswer.model_validate(found))

    async def _row(self, request: web.Request) -> SAERow:
        return await self._watchers.row(keys(request), one(request, "id"))


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", "50")
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= _MOST):
        raise Refused(400, f"limit is {text[:50]!r}: give 1 to {_MOST}")
    return int(text)


def _list(found: dict[str, Any]) -> web.Response:
    return json_of(answers.LatentList.model_validate(found))
