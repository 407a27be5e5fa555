"""The server's routes: what is shown to everyone who may read, and training where it was switched on."""

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web

from saelight.errors import UserError
from saelight.report import sae_row
from saelight.serve import answers
from saelight.serve.counted_cache import CountedCache, rate
from saelight.serve.event_stream import Message, Streams
from saelight.serve.guards import MOST_BYTES, Guard, Refused, json_of, one
from saelight.serve.job_queue import JobQueue
from saelight.serve.latent_routes import LatentRoutes
from saelight.serve.live_page import POLICY, home_page, live_page, served_asset
from saelight.serve.log_tail import text_from
from saelight.serve.openapi import Query, Route, describe
from saelight.serve.training_routes import TrainingRoutes
from saelight.serve.watchers import Watchers, keys
from saelight.serve.watching import Folders, Watched
from saelight.sweep.execute.launch.logs import log_of
from saelight.sweep.store.sweep_folder import SweepFolder
from saelight.version import version

_MOST_CURVES = 32
"""Curves of one request."""
_LOG_BYTES = 64 * 1024
"""Of a log, in one answer."""
_OF = Query("of", "the key of a run or a sweep, as /api/folders lists them", required=True)
_BOTH = Query("of", "the key of a run or a sweep; of two that are seen side by side, both", required=True, repeated=True)
_AFTER = Query("after", "the id of the last message, where there is no Last-Event-ID")


class Server:
    """The handlers.

    Args:
        folders: What is shown.
        streams: Who watches.
        token: What clients have to show, if anything.
        queue: Where training is queued; None where the server only reads.
    """

    def __init__(self, folders: Folders, streams: Streams, token: str | None, queue: JobQueue | None) -> None:
        self.folders, self.streams, self.queue = folders, streams, queue
        self._watchers = Watchers(folders)
        self._latents = LatentRoutes(self._watchers)
        self.routes = [
            Route("GET", "/", "the page that lists runs and sweeps", self.home, "text/html"),
            Route("GET", "/show", "the page of a run or a sweep, or of two", self.show, "text/html", query=(_BOTH,)),
            Route("GET", "/assets/{name}", "what the pages run", self.asset, "text/javascript"),
            Route("GET", "/api/health", "whether the server is there", self.health, answers.Health),
            Route("GET", "/api/openapi.json", "this description", self.openapi, "application/json"),
            Route("GET", "/api/folders", "the runs and sweeps", self.list_folders, answers.FolderList),
            Route("GET", "/api/document", "all that a page shows", self.document, "application/json", query=(_BOTH,)),
            Route("GET", "/api/events", "its changes (SSE)", self.events, "text/event-stream", query=(_BOTH, _AFTER)),
            Route(
                "GET",
                "/api/curves",
                "training curves, thinned, spikes kept",
                self.curves,
                answers.Curves,
                query=(_BOTH, Query("id", "the number of an SAE in the document", required=True, repeated=True)),
            ),
            Route(
                "GET",
                "/api/log",
                "what a group's training printed",
                self.log,
                answers.LogText,
                query=(_OF, Query("group", "as group-000", required=True), Query("from", "where to read on")),
            ),
            Route("GET", "/api/progress", "how far training is", self.progress, answers.Progress, query=(_OF,)),
            Route(
                "GET",
                "/api/progress/events",
                "the same, as it changes (SSE)",
                self.progress_events,
                "text/event-stream",
                query=(_OF, _AFTER),
            ),
            Route(
                "GET",
                "/api/progress/ws",
                "the same, by WebSocket",
                self.progress_websocket,
                answers.Progress,
                query=(_OF,),
                status=101,
            ),
            Route("GET", "/api/cache/stats", "what the server's caches hold and hit", self.cache_stats, answers.CacheStats),
            *TrainingRoutes(queue, folders.roots).routes,
            *self._latents.routes,
        ]
        self.description = describe(self.routes, token is not None)

    async def home(self, request: web.Request) -> web.Response:
        found = await asyncio.to_thread(self.folders.roots.folders)
        if len(found) == 1 and self.queue is None and list(found.values()) == self.folders.roots.paths:
            raise web.HTTPSeeOther(request.rel_url.with_path("/show").with_query(of=next(iter(found))))
        title = ", ".join(path.name for path in self.folders.roots.paths)
        return _html(home_page(title))

    async def show(self, request: web.Request) -> web.Response:
        watched = await self._watchers.looked(keys(request))
        return _html(live_page(self._document(watched)))

    async def asset(self, request: web.Request) -> web.Response:
        found = served_asset(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        return web.Response(text=found[0], content_type=found[1])

    async def health(self, request: web.Request) -> web.Response:
        return json_of(answers.Health(version=version(), training=self.queue is not None))

    async def openapi(self, request: web.Request) -> web.Response:
        return web.json_response(self.description)

    async def list_folders(self, request: web.Request) -> web.Response:
        return json_of(await asyncio.to_thread(self._list_folders))

    def _list_folders(self) -> answers.FolderList:
        rows = [self._folder(key, path) for key, path in self.folders.roots.folders().items()]
        rows.sort(key=lambda row: -row.changed)
        return answers.FolderList(folders=rows, strays=self.folders.roots.strays(), training=self.queue is not None)

    def _folder(self, key: str, path: Path) -> answers.Folder:
        kind = "sweep" if (path / "index.json").is_file() else "run"
        found: dict[str, Any] = {"key": key, "kind": kind, "changed": _changed(path), "trouble": None}
        try:
            gathered = self.folders.read(path).gathered
        except (UserError, OSError) as error:
            return answers.Folder(saes=0, states={}, step=None, steps=None, eta=None, **found | {"trouble": str(error)})
        states: dict[str, int] = {}
        for row in gathered.rows:
            states[row.state] = states.get(row.state, 0) + 1
        etas = [row.eta for row in gathered.rows if row.eta is not None]
        step, steps = _steps(gathered.rows)
        return answers.Folder(
            saes=len(gathered.rows), states=states, step=step, steps=steps, eta=max(etas, default=None), **found
        )

    async def document(self, request: web.Request) -> web.Response:
        return web.json_response(self._document(await self._watchers.looked(keys(request))))

    def _document(self, watched: Watched) -> dict[str, Any]:
        jobs = [path.name for path in watched.paths if self.queue is not None and self.queue.is_job(path)]
        return watched.whole() | {"job": jobs[0] if len(watched.paths) == len(jobs) == 1 else None}

    async def curves(self, request: web.Request) -> web.Response:
        watched = await self._watchers.looked(keys(request))
        numbers = [int(text) for text in request.query.getall("id", []) if text.isdecimal() and len(text) < 10]
        if not 0 < len(numbers) <= _MOST_CURVES:
            raise Refused(400, f"name 1 to {_MOST_CURVES} SAEs by their numbers, as id=0&id=3")
        found = await asyncio.to_thread(watched.curves, numbers)
        return json_of(answers.Curves(curves=found))

    async def log(self, request: web.Request) -> web.Response:
        path, group = self.folders.roots.find(one(request, "of")), one(request, "group")
        folder = SweepFolder.existing(path)
        if group not in folder.read().groups:
            raise Refused(404, f"no group {group[:50]!r} in {path.name}: the document lists them")
        file, start = log_of(folder, group), request.query.get("from")
        if not file.is_file() or not self.folders.roots.holds(file):
            raise Refused(404, f"{group} has no log yet")
        offset = int(start) if start and start.isdecimal() and len(start) < 16 else None
        text, following = await asyncio.to_thread(text_from, file, offset, _LOG_BYTES)
        return json_of(answers.LogText(text=text, next=following))

    async def events(self, request: web.Request) -> web.StreamResponse:
        watched = self._watchers.watched(keys(request))
        return await self.streams.events(request, watched, watched.since)

    async def progress(self, request: web.Request) -> web.Response:
        watched = await self._watchers.looked(keys(request, 1))
        return web.json_response(self._progress(request, watched)(0))

    async def progress_events(self, request: web.Request) -> web.StreamResponse:
        watched = self._watchers.watched(keys(request, 1))
        return await self.streams.events(request, watched, self._progress(request, watched))

    async def progress_websocket(self, request: web.Request) -> web.StreamResponse:
        watched = self._watchers.watched(keys(request, 1))
        if not web.WebSocketResponse().can_prepare(request):
            raise Refused(400, "open this by a WebSocket: /api/progress/events has the same as Server-Sent Events")
        return await self.streams.websocket(request, watched, self._progress(request, watched))

    def _progress(self, request: web.Request, watched: Watched) -> Message:
        of = one(request, "of")
        return lambda version: {"of": of} | watched.progress()

    async def cache_stats(self, request: web.Request) -> web.Response:
        latents, trials = self._latents.latents, self._latents.trials
        caches: dict[str, CountedCache[Any]] = {
            "folders": self.folders.cache,
            "curves": self.folders.tails,
            "latents": latents.open,
            "searches": latents.searches,
            "texts": trials.cache,
        }
        return json_of(
            answers.CacheStats(
                feature_cache_hit_rate=rate(latents.open, latents.searches, self.folders.tails),
                provenance_cache_hit_rate=rate(self.folders.cache),
                inference_cache_hit_rate=rate(trials.cache),
                caches={name: answers.Cache(**cache.stats()) for name, cache in caches.items()},
            )
        )

    async def close(self) -> None:
        """End what the server has started."""
        await self._latents.trials.close()


def application(server: Server, guard: Guard) -> web.Application:
    """The routes behind their guard."""
    app = web.Application(middlewares=[guard.answer], client_max_size=MOST_BYTES)
    for route in server.routes:
        app.router.add_route(route.method, route.path, route.handler)
    return app


def _html(text: str) -> web.Response:
    headers = {"Content-Security-Policy": POLICY}
    return web.Response(text=text, content_type="text/html", headers=headers)


def _changed(path: Path) -> float:
    stamps = []
    for name in ("progress.json", "results.jsonl", "state.jsonl", "index.json", "."):
        try:
            stamps.append((path / name).stat().st_mtime)
        except OSError:
            continue
    return max(stamps, default=0.0)


def _steps(rows: list[sae_row.SAERow]) -> tuple[float | None, float | None]:
    """Steps done, and of how many: summed over the SAEs of which both are known."""
    known = [(row.steps or 0, row.of_steps) for row in rows if row.of_steps]
    return (float(sum(done for done, _ in known)), float(sum(of or 0 for _, of in known))) if known else (None, None)
