"""Own texts tried on an SAE: the process that reads them, started with the first and ended when none comes for a while."""

import asyncio
import contextlib
import json
import os
import sys
from typing import Any

from saelight.errors import UserError
from saelight.serve.counted_cache import CountedCache
from saelight.sweep.execute.child import PARENT

_PATIENCE = 300.0
"""Seconds for an answer: the first loads the model."""
_IDLE = 600.0
"""Seconds without a text after which the process ends, and its memory is free."""
_LARGEST = 16 * 2**20
"""Bytes of an answer."""


class TextTrials:
    """Reads texts, one after the other."""

    def __init__(self) -> None:
        self.cache: CountedCache[dict[str, Any]] = CountedCache(64)
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._ending: asyncio.TimerHandle | None = None

    async def read(self, sae: str, stamp: float, text: str, latents: list[int]) -> dict[str, Any]:
        """What an SAE makes of a text (text_process.py). Raises `UserError`.

        Args:
            sae: Its folder.
            stamp: When that was last written.
        """
        key = (sae, stamp, text, tuple(latents))
        async with self._turn:
            if (known := self.cache.known(key)) is not None:
                return known
            answer = await self._ask({"sae": sae, "text": text, "latents": latents})
            if "error" in answer:
                raise UserError(answer["error"])
            return self.cache.get(key, lambda: answer)

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await self._start()
        if self._ending is not None:
            self._ending.cancel()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_PATIENCE):
                process.stdin.write(json.dumps(request).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except BaseException as error:
            await self.close()  # its next answer would be this one's
            if isinstance(error, TimeoutError | ValueError | ConnectionError):
                raise UserError("the text took too long, or its process ended: try a shorter one") from None
            raise
        self._ending = asyncio.get_running_loop().call_later(_IDLE, process.stdin.close)
        if not line:
            raise UserError("the process that reads text has ended, perhaps as memory does not suffice: try a smaller model")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "saelight.serve.text_process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | {PARENT: str(os.getpid())},
            limit=_LARGEST,
            start_new_session=True,
        )

    async def close(self) -> None:
        """End the process."""
        if self._ending is not None:
            self._ending.cancel()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None
