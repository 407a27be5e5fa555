"""Training that was asked for over HTTP: a queue of sweeps, each trained by `saelight sweep run` on a device of its own.

A job is a sweep's folder with a `request.json` in it: what was asked, and whether it is still wanted. Nothing else is
remembered, so that the queue goes on after the server was stopped, or killed.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.files import check_name, write_text
from saelight.serve.answers import TrainRequest
from saelight.serve.guards import Refused
from saelight.serve.train_requests import PRESETS, DataRoots, Planned, plan, write_plan
from saelight.sweep.execute.child import PARENT
from saelight.sweep.store.runner_lock import is_held
from saelight.sweep.store.sweep_folder import SweepFolder

REQUEST = "request.json"
_MOST_WAITING = 100
_PATIENCE = 600.0
"""Seconds for runs to write their checkpoints when the server stops."""
_NO_LAYERS = "has no layers to choose from"
_ERROR = "saelight: error: "
_PROCESS = (sys.executable, "-m", "saelight.serve.job_process")


class JobQueue:
    """The jobs in a folder of runs.

    Args:
        home: Where their folders are made.
        data: Where activations may be read.
        devices: `auto`, or a worker each, as `saelight sweep run --devices` takes them.
    """

    def __init__(self, home: Path, data: DataRoots, devices: str) -> None:
        self.home, self._data, self._wanted_devices = home, data, devices
        self._devices: list[str] = []
        """All that train; none before they were asked for."""
        self._idle: list[str] = []
        """Those without a job."""
        self._running: dict[str, tuple[asyncio.subprocess.Process, str]] = {}
        """By name: the process and its device."""
        self._waits: set[asyncio.Task[None]] = set()
        self._planning, self._asking = asyncio.Lock(), asyncio.Lock()
        self._news = asyncio.Event()
        """That a job may be able to start."""
        self._news.set()
        self._closing = False
        self._task = asyncio.create_task(self._work())

    async def submit(self, request: TrainRequest, preset: str) -> str:
        """Check a request, and queue it; the job's name.

        Raises:
            UserError: It cannot be trained.
            Refused: Too many wait.
        """
        await self.find_devices()
        waiting = sum(self.request(name)["wanted"] for name in self.names())
        if waiting >= _MOST_WAITING:
            raise Refused(429, f"{waiting} jobs are wanted already: stop some, or ask again later")
        async with self._planning:
            name = self._free_name(request.name, preset)
            try:
                planned = await self._plan(request, preset, name)
            except UserError as error:
                if request.layer_idx is None or _NO_LAYERS not in str(error):
                    raise
                planned = await self._plan(request.model_copy(update={"layer_idx": None}), preset, name)
                planned.notes.append(f"layer_idx is not used: {request.activation_data_path} has one layer")
            said = {"preset": preset, "asked": request.model_dump(exclude_none=True), "notes": planned.notes}
            self._write(name, said | {"time": time.time(), "wanted": True, "error": None})
        self._news.set()
        return name

    def _free_name(self, asked: str | None, preset: str) -> str:
        if asked is not None:
            check_name(asked, "the job's name")
            if (self.home / asked).exists():
                raise UserError(f"there is a run {asked!r} already: give another name")
            return asked
        numbered = (preset if n == 1 else f"{preset}-{n}" for n in range(1, 1_000_000))
        return next(name for name in numbered if not (self.home / name).exists())

    async def _plan(self, request: TrainRequest, preset: str, name: str) -> Planned:
        """Have a request checked against its data and the SAEs' classes, and its folder made: it is there whole, or not."""
        assert self._devices
        planned = plan(request, preset, self._data, name)
        with tempfile.TemporaryDirectory() as folder:
            file = write_plan(planned, Path(folder))
            await _ask("plan", str(file), str(self.home / name), self._devices[0])
        return planned

    def names(self) -> list[str]:
        """The jobs, the first asked first."""
        found = [path.parent for path in self.home.glob(f"*/{REQUEST}") if (path.parent / "index.json").is_file()]
        return [path.name for path in sorted(found, key=lambda path: (self.request(path.name)["time"], path.name))]

    def is_job(self, path: Path) -> bool:
        """Whether a folder is a job's."""
        return path.parent == self.home and (path / REQUEST).is_file()

    def find(self, name: str) -> str:
        """The name, if it is a job's. Raises `Refused`."""
        if name not in self.names():
            raise Refused(404, f"no job {name[:100]!r}: GET /api/jobs lists them")
        return name

    def request(self, name: str) -> dict[str, Any]:
        """What was asked, and whether it is still wanted; of a damaged file, that nothing is."""
        nothing = {"preset": "fast", "asked": {}, "notes": [], "time": 0.0, "wanted": False, "error": None}
        try:
            content = json.loads((self.home / name / REQUEST).read_text())
        except (OSError, ValueError, RecursionError):
            return nothing | {"error": f"{REQUEST} is damaged"}
        whole = isinstance(content, dict) and all(
            isinstance(content.get(key), type(value) if value is not None else str | None) for key, value in nothing.items()
        )
        return content if whole and content["preset"] in PRESETS else nothing | {"error": f"{REQUEST} is damaged"}

    def _write(self, name: str, content: dict[str, Any]) -> None:
        write_text(self.home / name / REQUEST, json.dumps(content, indent=1) + "\n")

    def state(self, name: str) -> str:
        """waiting, running, stopping, stopped, finished or failed."""
        said, folder = self.request(name), SweepFolder(self.home / name)
        if name in self._running or is_held(folder):
            return "running" if said["wanted"] else "stopping"
        if said["error"] is not None:
            return "failed"
        try:
            if not folder.unfinished(folder.read()):
                return "finished"
        except (UserError, ValueError, KeyError):
            return "failed"
        return "waiting" if said["wanted"] else "stopped"

    def device(self, name: str) -> str | None:
        """Where a job runs now."""
        return self._running[name][1] if name in self._running else None

    def stop(self, name: str) -> None:
        """Take a job from the queue, or have its runs write their checkpoints and end."""
        if (state := self.state(name)) not in ("waiting", "running"):
            raise Refused(409, f"{name} is {state}: only what waits or runs can be stopped")
        if state == "running" and name not in self._running:
            raise Refused(409, f"{name} is trained by another process of this machine: stop it there")
        self._write(name, self.request(name) | {"wanted": False})
        if name in self._running:
            _tell(self._running[name][0])

    def resume(self, name: str) -> None:
        """Queue a job again that was stopped or has failed; it goes on from its checkpoints."""
        if (state := self.state(name)) not in ("stopped", "failed"):
            raise Refused(409, f"{name} is {state}: only what was stopped or has failed can be resumed")
        self._write(name, self.request(name) | {"wanted": True, "error": None})
        self._news.set()

    @property
    def busy(self) -> bool:
        """Whether anything trains now."""
        return bool(self._running)

    def tell(self) -> None:
        """Have all that trains write its checkpoint and end; a second time, end at once."""
        for process, _ in self._running.values():
            _tell(process)

    async def close(self) -> None:
        """Stop: the runs write their checkpoints. What is wanted stays so, and goes on when the server is started again."""
        self._closing = True
        self._task.cancel()
        self.tell()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await asyncio.gather(*self._waits)

    async def find_devices(self) -> None:
        """Ask which devices there are, in a process of its own. Raises `UserError` for one that is not there."""
        async with self._asking:
            if self._devices:
                return
            self._devices = json.loads(await _ask("devices", self._wanted_devices))
            self._idle = list(self._devices)

    async def _work(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            waiting = [name for name in self.names() if self.request(name)["wanted"] and self.state(name) == "waiting"]
            if waiting:
                await self.find_devices()
                for name in waiting[: len(self._idle)]:
                    with contextlib.suppress(FileNotFoundError):  # somebody has removed it
                        await self._start(name, self._idle[0])

    async def _start(self, name: str, device: str) -> None:
        log = self.home / name / "logs" / "runner.txt"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                *(*_PROCESS, "train", str(self.home / name), device),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=os.environ | {PARENT: str(os.getpid())},
                start_new_session=True,  # Ctrl-C reaches the server alone, which tells its jobs once
            )
        self._idle.remove(device)
        self._running[name] = (process, device)
        task = asyncio.create_task(self._wait(name, process, device, log))
        self._waits.add(task)
        task.add_done_callback(self._waits.discard)

    async def _wait(self, name: str, process: asyncio.subprocess.Process, device: str, log: Path) -> None:
        code = await process.wait()
        del self._running[name]
        self._idle.append(device)
        said = self.request(name)
        if said["wanted"] and not self._closing:
            # 130: it was stopped, by somebody on this machine
            error = None if code in (0, 130) else _last_line(log) or f"it ended with code {code}"
            self._write(name, said | {"wanted": False, "error": error})
        self._news.set()


def _tell(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)


def _last_line(log: Path) -> str:
    """Why a runner failed, in its own words."""
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4_096))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if "failed: " in line or "error: " in line]
    return (said or lines or [""])[-1].removeprefix(_ERROR)


async def _ask(action: str, *args: str) -> str:
    """What a process says that does one thing and ends. Raises `UserError` with its word of what is wrong."""
    process = await asyncio.create_subprocess_exec(
        *(*_PROCESS, action, *args),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {PARENT: str(os.getpid())},
        start_new_session=True,
    )
    try:
        said, wrong = await process.communicate()
    except asyncio.CancelledError:
        _tell(process)
        raise
    if process.returncode != 0:
        words = wrong.decode(errors="replace").strip()
        lines = [line for line in words.splitlines() if line.startswith(_ERROR)] or words.splitlines()[-1:]
        raise UserError(lines[-1].removeprefix(_ERROR) if lines else f"it ended with code {process.returncode}")
    return said.decode()
