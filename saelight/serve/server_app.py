"""The server's routes: what is shown to everyone who may read, and training where it was switched on."""

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web

from saelight.errors import UserError
from saelight.report import sae_row
from saelight.serve import answers
from saelight.serve.counted_cache import CountedCache
from saelight.serve.event_stream import Message, Streams
from saelight.serve.guards import MOST_BYTES, Guard, Refused, read_body
from saelight.serve.job_queue import JobQueue
from saelight.serve.live_page import POLICY, home_page, live_page, served_asset
from saelight.serve.log_tail import text_from
from saelight.serve.openapi import Query, Route, describe
from saelight.serve.watching import Folders, Watched
from saelight.sweep.execute.launch.logs import log_of
from saelight.sweep.store.sweep_folder import SweepFolder
from saelight.version import version

_MOST_SHOWN = 2
"""Folders side by side."""
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
        self._watched: CountedCache[Watched] = CountedCache(64)
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
            Route("GET", "/api/jobs", "training that was asked for", self.list_jobs, answers.JobList),
            Route("GET", "/api/jobs/{job}", "one of these", self.get_job, answers.Job),
            *self._training_routes(),
        ]
        self.description = describe(self.routes, token is not None)

    def _training_routes(self) -> list[Route]:
        """What changes something: each is refused in one line where the server only reads."""
        asked = answers.TrainRequest
        return [
            Route("POST", "/api/sae/train", "train the preset `optimized`", self.train, answers.Job, asked, status=202),
            Route("POST", "/api/sae/train-fast", "train the preset `fast`", self.train_fast, answers.Job, asked, status=202),
            Route("POST", "/api/jobs/{job}/stop", "checkpoint and end", self.stop, answers.Job, answers.Nothing, status=202),
            Route("POST", "/api/jobs/{job}/resume", "go on", self.resume, answers.Job, answers.Nothing, status=202),
        ]

    async def home(self, request: web.Request) -> web.Response:
        keys = await asyncio.to_thread(self.folders.roots.folders)
        if len(keys) == 1 and self.queue is None and list(keys.values()) == self.folders.roots.paths:
            raise web.HTTPSeeOther(request.rel_url.with_path("/show").with_query(of=next(iter(keys))))
        title = ", ".join(path.name for path in self.folders.roots.paths)
        return _html(home_page(title))

    async def show(self, request: web.Request) -> web.Response:
        watched = await self._looked(request)
        return _html(live_page(self._document(watched)))

    async def asset(self, request: web.Request) -> web.Response:
        found = served_asset(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        return web.Response(text=found[0], content_type=found[1])

    async def health(self, request: web.Request) -> web.Response:
        return _json(answers.Health(version=version(), training=self.queue is not None))

    async def openapi(self, request: web.Request) -> web.Response:
        return web.json_response(self.description)

    async def list_folders(self, request: web.Request) -> web.Response:
        return _json(await asyncio.to_thread(self._list_folders))

    def _list_folders(self) -> answers.FolderList:
        rows = [self._folder(key, path) for key, path in self.folders.roots.folders().items()]
        rows.sort(key=lambda row: -row.changed)
        return answers.FolderList(folders=rows, strays=self.folders.roots.strays(), training=self.queue is not None)

    def _folder(self, key: str, path: Path) -> answers.Folder:
        kind = "sweep" if (path / "index.json").is_file() else "run"
        found: dict[str, Any] = {"key": key, "kind": kind, "changed": _changed(path), "trouble": None}
        try:
            gathered = self.folders.read(path).gathered
        except UserError as error:
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
        return web.json_response(self._document(await self._looked(request)))

    def _document(self, watched: Watched) -> dict[str, Any]:
        jobs = [path.name for path in watched.paths if self.queue is not None and self.queue.is_job(path)]
        return watched.whole() | {"job": jobs[0] if len(watched.paths) == len(jobs) == 1 else None}

    async def curves(self, request: web.Request) -> web.Response:
        watched = await self._looked(request)
        numbers = [int(text) for text in request.query.getall("id", []) if text.isdecimal() and len(text) < 10]
        if not 0 < len(numbers) <= _MOST_CURVES:
            raise Refused(400, f"name 1 to {_MOST_CURVES} SAEs by their numbers, as id=0&id=3")
        found = await asyncio.to_thread(watched.curves, numbers)
        return _json(answers.Curves(curves=found))

    async def log(self, request: web.Request) -> web.Response:
        path, group = self._path(_one(request, "of")), _one(request, "group")
        folder = SweepFolder.existing(path)
        if group not in folder.read().groups:
            raise Refused(404, f"no group {group[:50]!r} in {path.name}: the document lists them")
        file, start = log_of(folder, group), request.query.get("from")
        if not file.is_file() or not self.folders.roots.holds(file):
            raise Refused(404, f"{group} has no log yet")
        offset = int(start) if start and start.isdecimal() and len(start) < 16 else None
        text, following = await asyncio.to_thread(text_from, file, offset, _LOG_BYTES)
        return _json(answers.LogText(text=text, next=following))

    async def events(self, request: web.Request) -> web.StreamResponse:
        watched = self._watching(request)
        return await self.streams.events(request, watched, watched.since)

    async def progress(self, request: web.Request) -> web.Response:
        watched = await self._looked(request, most=1)
        return web.json_response(self._progress(request, watched)(0))

    async def progress_events(self, request: web.Request) -> web.StreamResponse:
        watched = self._watching(request, most=1)
        return await self.streams.events(request, watched, self._progress(request, watched))

    async def progress_websocket(self, request: web.Request) -> web.StreamResponse:
        watched = self._watching(request, most=1)
        if not web.WebSocketResponse().can_prepare(request):
            raise Refused(400, "open this by a WebSocket: /api/progress/events has the same as Server-Sent Events")
        return await self.streams.websocket(request, watched, self._progress(request, watched))

    def _progress(self, request: web.Request, watched: Watched) -> Message:
        of = _one(request, "of")
        return lambda version: {"of": of} | watched.progress()

    async def cache_stats(self, request: web.Request) -> web.Response:
        provenance, features = self.folders.cache, self.folders.tails
        caches: dict[str, CountedCache[Any]] = {"folders": provenance, "curves": features}
        return _json(
            answers.CacheStats(
                feature_cache_hit_rate=features.rate,
                provenance_cache_hit_rate=provenance.rate,
                inference_cache_hit_rate=None,
                caches={name: answers.Cache(**cache.stats()) for name, cache in caches.items()},
            )
        )

    async def list_jobs(self, request: web.Request) -> web.Response:
        names = [] if self.queue is None else self.queue.names()
        return _json(answers.JobList(jobs=[self._job(name) for name in names]))

    async def get_job(self, request: web.Request) -> web.Response:
        return _json(self._job(self._training().find(request.match_info["job"])))

    async def train(self, request: web.Request) -> web.Response:
        return await self._train(request, "optimized")

    async def train_fast(self, request: web.Request) -> web.Response:
        return await self._train(request, "fast")

    async def _train(self, request: web.Request, preset: str) -> web.Response:
        queue = self._training()
        asked = await read_body(request, answers.TrainRequest)
        return _json(self._job(await queue.submit(asked, preset)), 202)

    async def stop(self, request: web.Request) -> web.Response:
        queue = self._training()
        await read_body(request, answers.Nothing)
        queue.stop(name := queue.find(request.match_info["job"]))
        return _json(self._job(name), 202)

    async def resume(self, request: web.Request) -> web.Response:
        queue = self._training()
        await read_body(request, answers.Nothing)
        queue.resume(name := queue.find(request.match_info["job"]))
        return _json(self._job(name), 202)

    def _training(self) -> JobQueue:
        if self.queue is None:
            raise Refused(403, "this server only reads: start it with `saelight serve --train` to train")
        return self.queue

    def _job(self, name: str) -> answers.Job:
        queue = self._training()
        said = queue.request(name)
        return answers.Job.model_validate(
            {key: said[key] for key in ("preset", "error", "asked", "notes")}
            | {"job": name, "state": queue.state(name), "device": queue.device(name), "folder": str(queue.home / name)}
            | {"page": f"/show?of={name}", "progress": f"/api/progress?of={name}"}
        )

    def _path(self, key: str) -> Path:
        return self.folders.roots.find(key)

    def _watching(self, request: web.Request, most: int = _MOST_SHOWN) -> Watched:
        keys = request.query.getall("of", [])
        if not 0 < len(keys) <= most:
            two = "; two side by side, as of=a&of=b" if most > 1 else ""
            raise Refused(400, f"name a run or a sweep, as of=quickstart{two}: GET /api/folders lists them")
        if len(set(keys)) < len(keys):
            raise Refused(400, f"{keys[0][:100]} is compared with itself: name another one")
        paths = tuple(map(self._path, keys))
        return self._watched.get(paths, lambda: Watched(self.folders, paths))

    async def _looked(self, request: web.Request, most: int = _MOST_SHOWN) -> Watched:
        watched = self._watching(request, most)
        await watched.look()
        if watched.version == 0 or watched.trouble:
            raise Refused(409, watched.trouble or "the folder cannot be read")
        return watched


def application(server: Server, guard: Guard) -> web.Application:
    """The routes behind their guard."""
    app = web.Application(middlewares=[guard.answer], client_max_size=MOST_BYTES)
    for route in server.routes:
        app.router.add_route(route.method, route.path, route.handler)
    return app


def _one(request: web.Request, name: str) -> str:
    given = request.query.getall(name, [])
    if len(given) != 1:
        raise Refused(400, f"give one {name}")
    return given[0]


def _json(answer: Any, status: int = 200) -> web.Response:
    return web.Response(text=answer.model_dump_json(), content_type="application/json", status=status)


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
