"""Training over HTTP: the requests that change something, refused in one line where the server only reads."""

from urllib.parse import quote

from aiohttp import web

from saelight.serve import answers
from saelight.serve.guards import Refused, json_of, read_body
from saelight.serve.job_queue import JobQueue
from saelight.serve.openapi import Route
from saelight.serve.served_folders import Roots


class TrainingRoutes:
    """The handlers.

    Args:
        queue: Where training is queued; None where the server only reads.
        roots: What is shown.
    """

    def __init__(self, queue: JobQueue | None, roots: Roots) -> None:
        self.queue, self._roots = queue, roots
        asked = answers.TrainRequest
        self.routes = [
            Route("GET", "/api/jobs", "training that was asked for", self.list_jobs, answers.JobList),
            Route("GET", "/api/jobs/{job}", "one of these", self.get_job, answers.Job),
            Route("POST", "/api/sae/train", "train the preset `optimized`", self.train, answers.Job, asked, status=202),
            Route("POST", "/api/sae/train-fast", "train the preset `fast`", self.train_fast, answers.Job, asked, status=202),
            Route("POST", "/api/jobs/{job}/stop", "checkpoint and end", self.stop, answers.Job, answers.Nothing, status=202),
            Route("POST", "/api/jobs/{job}/resume", "go on", self.resume, answers.Job, answers.Nothing, status=202),
        ]

    async def list_jobs(self, request: web.Request) -> web.Response:
        names = [] if self.queue is None else self.queue.names()
        return json_of(answers.JobList(jobs=[self._job(name) for name in names]))

    async def get_job(self, request: web.Request) -> web.Response:
        return json_of(self._job(self._switched_on().find(request.match_info["job"])))

    async def train(self, request: web.Request) -> web.Response:
        return await self._train(request, "optimized")

    async def train_fast(self, request: web.Request) -> web.Response:
        return await self._train(request, "fast")

    async def _train(self, request: web.Request, preset: str) -> web.Response:
        queue = self._switched_on()
        asked = await read_body(request, answers.TrainRequest)
        return json_of(self._job(await queue.submit(asked, preset)), 202)

    async def stop(self, request: web.Request) -> web.Response:
        queue = self._switched_on()
        await read_body(request, answers.Nothing)
        queue.stop(name := queue.find(request.match_info["job"]))
        return json_of(self._job(name), 202)

    async def resume(self, request: web.Request) -> web.Response:
        queue = self._switched_on()
        await read_body(request, answers.Nothing)
        queue.resume(name := queue.find(request.match_info["job"]))
        return json_of(self._job(name), 202)

    def _switched_on(self) -> JobQueue:
        if self.queue is None:
            raise Refused(403, "this server only reads: start it with `saelight serve --train` to train")
        return self.queue

    def _job(self, name: str) -> answers.Job:
        queue = self._switched_on()
        said, key = queue.request(name), quote(self._roots.key(queue.home / name) or name, safe="")
        return answers.Job.model_validate(
            {key: said[key] for key in ("preset", "error", "asked", "notes")}
            | {"job": name, "state": queue.state(name), "device": queue.device(name), "folder": str(queue.home / name)}
            | {"page": f"/show?of={key}", "progress": f"/api/progress?of={key}"}
        )
