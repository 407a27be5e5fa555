"""`saelight serve` from its start to its end: the socket, the token, the signals."""

import asyncio
import errno
import secrets
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from saelight.errors import UserError
from saelight.serve.event_stream import Streams
from saelight.serve.guards import Guard, is_loopback, own_names
from saelight.serve.job_queue import JobQueue
from saelight.serve.served_folders import Roots
from saelight.serve.server_app import Server, application
from saelight.serve.train_requests import DataRoots
from saelight.serve.watching import Folders

_MOST_STREAMS = 256
_ALL = ("0.0.0.0", "::")
_IDLE = 20.0
"""Seconds that a connection without a request is kept."""
_TRIED = 200
"""Ports above one that is taken, of which the first free one is named."""


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    runs: Sequence[str] = ("runs",)
    port: int = 8765
    host: str = "127.0.0.1"
    train: bool = False
    data: Sequence[str] = (".",)
    devices: str = "auto"
    token: bool = False
    """Ask for a token on loopback too."""


class Serving:
    """A server that runs in this event loop, from `start` to `stop`."""

    def __init__(self, options: Options) -> None:
        self.options = options
        if options.train:
            Path(options.runs[0]).mkdir(parents=True, exist_ok=True)
        self.roots = Roots(options.runs)
        if options.train and self.roots.paths[0] in self.roots.folders().values():
            raise UserError(
                f"{options.runs[0]} is a run or a sweep: --train makes others beside such, so name the folder of all"
            )
        self._data = DataRoots(options.data) if options.train else None
        self.token = secrets.token_urlsafe(24) if options.token or not is_loopback(options.host) else None
        self.queue: JobQueue | None = None
        self.streams = Streams(_MOST_STREAMS)
        self.server: Server | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. Raises `UserError` where that cannot be."""
        bound = _bind(self.options.host, self.options.port)
        try:
            if self._data is not None:
                self.queue = JobQueue(self.roots.paths[0], self._data, self.options.devices)
                if self.options.devices != "auto":
                    await self.queue.find_devices()
            self.server = server = Server(Folders(self.roots), self.streams, self.token, self.queue)
            app = application(server, Guard(own_names(self.options.host), self.token))
            self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=_IDLE, shutdown_timeout=2.0)
            await self._runner.setup()
            await web.SockSite(self._runner, bound).start()
        except BaseException:
            bound.close()
            await self.stop()
            raise
        self.port = bound.getsockname()[1]

    @property
    def address(self) -> str:
        """What to open, with the token where there is one."""
        host = socket.gethostname() if self.options.host in _ALL else self.options.host
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}/" + (f"?token={self.token}" if self.token else "")

    async def stop(self) -> None:
        """End the streams, have training write its checkpoints, and close."""
        self.streams.close()
        if self.queue is not None:
            await self.queue.close()
        if self.server is not None:
            await self.server.close()
        if self._runner is not None:
            await self._runner.cleanup()


def serve(options: Options) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    asyncio.run(_serve(options))


async def _serve(options: Options) -> None:
    serving = Serving(options)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopped.is_set() and serving.queue is not None:
            serving.queue.tell()  # a second time: at once, from the checkpoint before
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    await serving.start()
    what = ", ".join(map(str, serving.roots.paths))
    does = "shows and trains" if options.train else "shows"
    print(f"saelight {does} {what}: open {serving.address} (Ctrl-C ends)", flush=True)
    for stray in serving.roots.strays():
        print(f"note: {stray}", flush=True)
    await stopped.wait()
    if serving.queue is not None and serving.queue.busy:
        print("stopping: what trains writes its checkpoint, and goes on when the server is started again", flush=True)
    await serving.stop()


def _bind(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises `UserError`."""
    try:
        return _listening(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            free = _next_free(host, port)
            raise UserError(
                f"port {port} is taken: " + (f"--port {free} is free" if free else "give another --port")
            ) from None
        if error.errno == errno.EACCES:
            raise UserError(f"port {port} is not for everyone: give --port one from 1024 on") from None
        raise UserError(
            f"--host {host} cannot be listened on ({error.strerror or error}): give an address of this machine"
        ) from None


def _listening(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except BaseException:
        bound.close()
        raise
    return bound


def _next_free(host: str, port: int) -> int | None:
    for other in range(port + 1, min(port + _TRIED, 65_536)):
        try:
            _listening(host, other).close()
        except OSError:
            continue
        return other
    return None
