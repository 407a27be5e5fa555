"""A server in this process, on loopback, and what its clients read."""

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp

from saelight.serve.serving import Options, Serving


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that is a coroutine, in a loop of its own, which has to end."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def ends() -> None:
            async with asyncio.timeout(600):
                await test(*args, **kwargs)

        asyncio.run(ends())

    return run


@contextlib.asynccontextmanager
async def served(*runs: Path, **options: Any) -> AsyncIterator[tuple[Serving, aiohttp.ClientSession]]:
    """A server that shows these folders, and a client of it."""
    serving = Serving(Options([str(path) for path in runs], port=0, **options))
    await serving.start()
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{serving.port}") as client:
            yield serving, client
    finally:
        await serving.stop()


async def answer(client: aiohttp.ClientSession, path: str, method: str = "GET", **more: Any) -> tuple[int, Any]:
    """Status and JSON."""
    async with client.request(method, path, **more) as response:
        return response.status, await response.json()


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """The id and the JSON of each Server-Sent Event."""
    number = ""
    async for line in response.content:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "id":
            number = value
        elif field == "data":
            yield number, json.loads(value)


def write_progress(run: Path, step: int, **states: str) -> None:
    """A run's `progress.json`, of 100 steps, with its SAEs' states."""
    saes = {name: {"state": state, "reason": None, "loss": 1 / step} for name, state in states.items()}
    content = {"step": step, "steps": 100, "tokens": 10 * step, "seconds": 1.0, "eta": 9.0, "device": "cpu", "saes": saes}
    run.mkdir(parents=True, exist_ok=True)
    (run / "progress.json").write_text(json.dumps(content))
