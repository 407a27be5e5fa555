"""Folders looked at again and again while somebody watches: what changed since which version."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saelight.errors import UserError
from saelight.files import is_locked
from saelight.report.curves import LOG
from saelight.report.document import document, finite
from saelight.report.gathered import Gathered, gather
from saelight.report.sae_row import SAERow
from saelight.run import evaluation_file
from saelight.serve.counted_cache import CountedCache
from saelight.serve.group_rows import group_rows
from saelight.serve.log_tail import CurveTail
from saelight.serve.served_folders import Roots
from saelight.sweep.store.runner_lock import is_held
from saelight.sweep.store.sweep_folder import SweepFolder

PAUSE = 1.0
"""Seconds between two looks, at least: progress files are written about as often."""
_SHARE = 0.1
"""Of the time, that looking may take: the rest is training's."""
_OLDEST = 10.0
"""Seconds after which a folder that is at work is read again, though no file changed: a process may have died."""
_FOLDERS, _TAILS = 64, 2_000
"""The most folders, and the most logs, that are kept in memory."""
_POINTS = 150
"""Of one SAE's curve."""


class Seen(NamedTuple):
    """A folder as it was read."""

    signature: tuple[Any, ...]
    when: float
    took: float
    gathered: Gathered


class Folders:
    """The folders that are shown, read when they have changed."""

    def __init__(self, roots: Roots) -> None:
        self.roots = roots
        self.cache: CountedCache[Seen] = CountedCache(_FOLDERS)
        self.tails: CountedCache[CurveTail] = CountedCache(_TAILS)

    def read(self, path: Path) -> Seen:
        """What a run's or a sweep's folder holds. Raises `UserError` where it is neither, or leads out of the roots."""
        signature = _signature(path)

        def fits(seen: Seen) -> bool:
            working = any(row.state in ("running", "waiting") for row in seen.gathered.rows)
            old = working and time.monotonic() - seen.when > _OLDEST
            return seen.signature == signature and not old

        def look() -> Seen:
            began = time.monotonic()
            self.roots.refuse_links_out(path)
            found = gather(path)
            return Seen(signature, began, time.monotonic() - began, found)

        return self.cache.get(path, look, fits)

    def curve(self, row: SAERow) -> dict[str, list[float | None]] | None:
        """An SAE's training curve up to now."""
        log = row.inside("logs")
        if log is None or not self.roots.holds(log / LOG):
            return None
        found = self.tails.get(log, lambda: CurveTail(log / LOG, _POINTS)).read()
        return found and {key: [finite(value) for value in values] for key, values in found.items()}


def _signature(path: Path) -> tuple[Any, ...]:
    """What changes when a run goes on, ends or dies."""
    if not (path / "index.json").is_file():
        return _run_signature(path)
    groups = sorted(run.name for run in (path / "runs").glob("group-*") if run.is_dir())
    folder = SweepFolder(path)
    held = (is_held(folder), *(folder.is_held(group) for group in groups))
    return (_stamps(path, "index.json", "state.jsonl"), held, *(_run_signature(path / "runs" / group) for group in groups))


def _run_signature(run: Path) -> tuple[Any, ...]:
    return (
        _stamps(run, "progress.json", "results.jsonl", "config.yaml", "saes", "logs"),
        # An evaluation comes, and is replaced, long after all else.
        tuple(
            (path.parent.name, *_stamps(path.parent, path.name))
            for path in sorted((run / "saes").glob(f"*/{evaluation_file.NAME}"))
        ),
        is_locked(run / ".lock", unknown=True),
    )


def _stamps(folder: Path, *names: str) -> tuple[Any, ...]:
    stamps: list[Any] = []
    for name in names:
        try:
            status = (folder / name).stat()
            stamps.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            stamps.append(None)
    return tuple(stamps)


class Watched:
    """One folder, or two side by side, and the version in which each part of what is said of them last changed.

    A version counts for one life of the server: `epoch` tells two apart.
    """

    epoch = secrets.token_hex(4)

    def __init__(self, folders: Folders, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self.version = 0
        self._folders = folders
        self._head: dict[str, Any] = {}
        self._saes: list[dict[str, Any]] = []
        self._changed: dict[str, int] = {}
        """By key of the head: the version in which it changed."""
        self._sae_changed: list[int] = []
        self._rows: list[SAERow] = []
        self._seen: list[Seen] = []
        self._watchers = 0
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()
        self._look_lock = asyncio.Lock()
        self.took = 0.0
        """Seconds that the last look took."""

    async def look(self) -> None:
        """Read what has changed, and count a version on if anything has."""
        async with self._look_lock:
            before, began = self.version, time.monotonic()
            try:
                if (found := await asyncio.to_thread(self._read)) is not None:
                    head, saes, self._rows, self._seen = found
                    self._take(head, saes)
            except (UserError, OSError) as error:
                self._seen = []
                self._take(self._head | {"trouble": str(error)}, self._saes)
            self.took = time.monotonic() - began
        if self.version != before:
            async with self._news:
                self._news.notify_all()

    def _read(self) -> tuple[dict[str, Any], list[dict[str, Any]], list[SAERow], list[Seen]] | None:
        """What there is to say; None where nothing has changed."""
        seen = [self._folders.read(path) for path in self.paths]
        if [id(one) for one in seen] == [id(one) for one in self._seen]:
            return None
        gathered = [one.gathered for one in seen]
        data = document(gathered, whole=False)
        rows = [row for source in gathered for row in source.rows]
        saes = data.pop("saes")
        del data["made"]
        for row, sae in zip(rows, saes, strict=True):
            sae["logged"] = _logged(row)
        groups = [group | {"source": i} for i, source in enumerate(gathered) for group in group_rows(source)]
        return data | {"groups": groups, "trouble": None}, saes, rows, seen

    def _take(self, head: dict[str, Any], saes: list[dict[str, Any]]) -> None:
        version = self.version + 1
        heads = [key for key in head if key not in self._head or head[key] != self._head[key]]
        changed = [i for i, sae in enumerate(saes) if i >= len(self._saes) or sae != self._saes[i]]
        if not heads and not changed and len(saes) == len(self._saes):
            return
        self._changed |= dict.fromkeys(heads, version)
        self._sae_changed = [*self._sae_changed[: len(saes)], *[version] * (len(saes) - len(self._sae_changed))]
        for i in changed:
            self._sae_changed[i] = version
        self._head, self._saes, self.version = head, saes, version

    @property
    def rows(self) -> list[SAERow]:
        """The SAEs, in the document's order."""
        return self._rows

    @property
    def trouble(self) -> str | None:
        """Why the folder cannot be read now."""
        return self._head.get("trouble")

    @property
    def event_id(self) -> str:
        """What a client says to go on from here, as `Last-Event-ID`."""
        return f"{self.epoch}-{self.version}"

    def version_of(self, event_id: str | None) -> int:
        """The version that a client has; 0, as of one that has none, where the id is of another life or of none."""
        epoch, _, number = (event_id or "").partition("-")
        known = epoch == self.epoch and number.isdecimal() and len(number) < 16
        return int(number) if known and int(number) <= self.version else 0

    def since(self, version: int) -> dict[str, Any]:
        """All that changed after a version: keys of the head, SAEs by their number, and how many there are."""
        return {
            "head": {key: value for key, value in self._head.items() if self._changed[key] > version},
            "saes": {i: sae for i, sae in enumerate(self._saes) if self._sae_changed[i] > version},
            "n": len(self._saes),
            "id": self.event_id,
        }

    def whole(self) -> dict[str, Any]:
        """The document that the page begins with."""
        return self._head | {"saes": self._saes, "made": time.strftime("%Y-%m-%d %H:%M %Z"), "id": self.event_id}

    def progress(self) -> dict[str, Any]:
        """How far training is, in few words."""
        keys = ("names", "variant", "group", "state", "reason", "steps", "of_steps", "tokens", "loss", "device", "eta")
        saes = [
            {key: sae[key] for key in keys} | {key: sae["metrics"].get(key) for key in ("l0", "fvu")} for sae in self._saes
        ]
        return {"trouble": self._head.get("trouble"), "groups": self._head.get("groups", []), "saes": saes}

    def curves(self, numbers: Sequence[int]) -> dict[int, Any]:
        """By SAE: its curve up to now. Takes a while: the first time it reads the whole log."""
        rows = self._rows
        return {i: self._folders.curve(rows[i]) for i in numbers if 0 <= i < len(rows)}

    async def follow(self, version: int, beat: float) -> AsyncGenerator[int | None, None]:
        """The new version each time that there is one; None after `beat` seconds without any."""
        self._watchers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._keep_looking())
        try:
            while True:
                if self.version == version:
                    try:
                        async with asyncio.timeout(beat), self._news:
                            if self.version == version:
                                await self._news.wait()
                    except TimeoutError:
                        yield None
                        continue
                version = self.version
                yield version
        finally:
            self._watchers -= 1
            if not self._watchers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _keep_looking(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(max(PAUSE, self.took / _SHARE))


def _logged(row: SAERow) -> int | None:
    """Bytes of an SAE's log: what tells that its curve has grown."""
    log = row.inside("logs")
    try:
        return None if log is None else (log / LOG).stat().st_size
    except OSError:
        return None
