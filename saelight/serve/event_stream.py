"""The same messages by Server-Sent Events and by WebSocket, to clients that may be slow, or gone."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import WSMsgType, web

from saelight.serve.guards import Refused
from saelight.serve.watching import Watched

BEAT = 15.0
"""Seconds between two signs of life, when nothing changes."""
PATIENCE = 30.0
"""Seconds that a client may take to read a message before it is dropped."""
Message = Callable[[int], dict[str, Any]]
"""What to send to a client that has a version."""


class Streams:
    """The open streams: at most `most`, each holds one message at a time, whatever its client reads."""

    def __init__(self, most: int, beat: float = BEAT, patience: float = PATIENCE) -> None:
        self.most, self.beat, self.patience = most, beat, patience
        self._open: set[asyncio.Task[Any]] = set()

    def close(self) -> None:
        """End all: the server stops."""
        for task in self._open:
            task.cancel()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        if len(self._open) >= self.most:
            raise Refused(503, f"{self.most} clients are watching already: close a page, or ask /api/progress now and then")
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            yield
        finally:
            self._open.discard(task)

    async def events(self, request: web.Request, watched: Watched, message: Message) -> web.StreamResponse:
        """Server-Sent Events: one message a version, what came after `Last-Event-ID` (or `?after=`) first."""
        with self._counted():
            version = watched.version_of(request.headers.get("Last-Event-ID") or request.query.get("after"))
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            )
            with contextlib.suppress(ConnectionError, TimeoutError):  # the client has gone, or does not read
                await response.prepare(request)
                await self._send_events(request, response, watched, version, message)
            return response

    async def _send_events(
        self, request: web.Request, response: web.StreamResponse, watched: Watched, version: int, message: Message
    ) -> None:
        await self._write(request, response, b"retry: 2000\n\n")
        async with contextlib.aclosing(watched.follow(version, self.beat)) as following:
            async for new in following:
                if new is None:
                    await self._write(request, response, b": still here\n\n")
                    continue
                text = json.dumps(message(version), allow_nan=False, separators=(",", ":"))
                await self._write(request, response, f"id: {watched.event_id}\ndata: {text}\n\n".encode())
                version = new

    async def _write(self, request: web.Request, response: web.StreamResponse, content: bytes) -> None:
        try:
            async with asyncio.timeout(self.patience):
                await response.write(content)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise

    async def websocket(self, request: web.Request, watched: Watched, message: Message) -> web.WebSocketResponse:
        """The same messages, as the texts of a WebSocket; what the client says is not listened to."""
        with self._counted():
            socket = web.WebSocketResponse(heartbeat=self.beat, max_msg_size=1024, compress=False)
            await socket.prepare(request)
            sending = asyncio.create_task(self._send(socket, watched, message))
            try:
                async for received in socket:
                    if received.type is WSMsgType.ERROR:
                        break
            finally:
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError, TimeoutError):
                    await sending
            return socket

    async def _send(self, socket: web.WebSocketResponse, watched: Watched, message: Message) -> None:
        version = 0
        async with contextlib.aclosing(watched.follow(version, self.beat)) as following:
            async for new in following:
                if new is not None:
                    text = json.dumps(message(version), allow_nan=False, separators=(",", ":"))
                    async with asyncio.timeout(self.patience):
                        await socket.send_str(text)
                    version = new
