"""Parts of a shard folder that several processes write at the same time, and what each of them notes of its own.

The parts' files lie where they will be read, on a disk in `<out>.partial`: nothing is copied when they become one folder.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from saelight.data.remote.remote_store import store_of
from saelight.data.remote.remote_url import Url
from saelight.data.shards.destination import write_file
from saelight.data.shards.disk import reading, writing
from saelight.data.shards.metadata import Count, Entry, Finite, Integer, NotNegative, Positive, Report
from saelight.data.shards.strict_json import parse, validated
from saelight.errors import UserError
from saelight.files import hold, replacing

T = TypeVar("T")

_MOST = 99_999
_NOTE = re.compile(r"part-(\d+)-of-(\d+)\.json")
PART_FILE = re.compile(r"part-\d+-of-\d+\.(json|lock)|merge\.lock")
"""What parts leave beside shards until they are one folder."""


class Part(NamedTuple):
    """The third of sixteen is `3/16`."""

    number: int
    """From 1 on."""
    of: int

    @classmethod
    def parsed(cls, text: str) -> "Part":
        """Raises `UserError` for what is no part."""
        found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
        part = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= part.number <= part.of <= _MOST:
            raise UserError(f"part {text!r} is none; write it as 3/16: the third of sixteen, from 1/16 to 16/16")
        return part

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def stem(self) -> str:
        """What its own files are called."""
        return f"part-{self.number:05d}-of-{self.of:05d}"

    def first(self, n: int) -> int:
        """Where its share of n things begins."""
        return (self.number - 1) * n // self.of

    def share(self, things: Sequence[T]) -> Sequence[T]:
        """Its share: as many as every part has, or one more, following the shares of the parts before."""
        return things[self.first(len(things)) : self._replace(number=self.number + 1).first(len(things))]


class Note(TypedDict):
    """What one part has written so far."""

    format: Literal["saelight-part"]
    version: Literal[1]
    part: Positive
    of: Positive
    done: bool
    settings: dict[str, Any]
    """Its metadata's model, hook, dtype, d_in and source: the same for all parts."""
    shards: list[Entry]
    squares: NotNegative
    """Σ‖x‖² of the shards' rows."""
    sum: list[Finite]
    """Their Σx."""
    documents: Annotated[list[Integer], Field(max_length=2)]
    """The documents of the first and the last row; none where they are not known."""
    position: dict[str, Any] | None
    """Where whoever makes the rows was when the last shard became full."""
    counts: dict[str, Count]
    """At the end: what of the source is known only then, and adds up over parts."""
    dropped: list[Report]


_SCHEMA = TypeAdapter(Note)


def empty_note(part: Part) -> Note:
    """Of a part that is done and has no rows."""
    return {
        "format": "saelight-part",
        "version": 1,
        "part": part.number,
        "of": part.of,
        "done": True,
        "settings": {},
        "shards": [],
        "squares": 0.0,
        "sum": [],
        "documents": [],
        "position": None,
        "counts": {},
        "dropped": [],
    }


class SharedFolder:
    """Where the parts of the folder `out` are written."""

    def __init__(self, out: Path | Url) -> None:
        self.out = out
        self.place: Path | Url = out if isinstance(out, Url) else Path(f"{out}.partial")

    def make(self) -> None:
        """Make it, where others have not."""
        if isinstance(self.place, Path):
            with writing(self.place):
                self.place.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        """What lies in it."""
        if isinstance(self.place, Url):
            return store_of(self.place).names(self.place)
        return sorted(path.name for path in self.place.iterdir()) if self.place.is_dir() else []

    def notes(self) -> list[Note]:
        """What each part has noted, in the order of the parts. Raises `UserError` for one that is damaged."""
        names = sorted(name for name in self.names() if _NOTE.fullmatch(name))
        return [self._read(name) for name in names]

    def note(self, part: Part) -> Note | None:
        """What one part has noted."""
        name = f"{part.stem}.json"
        return self._read(name) if name in self.names() else None

    def write_note(self, part: Part, note: Note) -> None:
        """Note in place of what was noted before."""
        self.write(f"{part.stem}.json", [memoryview(json.dumps(note, allow_nan=False).encode())])

    def write(self, name: str, pieces: Sequence[memoryview]) -> None:
        """Write a file, whole, in place of what is there."""
        if isinstance(self.place, Url):
            store_of(self.place).write(self.place / name, b"".join(pieces))
        else:
            with writing(self.place / name), replacing(self.place / name, durable=True) as partial:
                write_file(partial, pieces)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if isinstance(self.place, Url):
            store_of(self.place).remove(self.place / name)
        else:
            (self.place / name).unlink(missing_ok=True)

    def hold(self, stem: str) -> IO[str] | None:
        """A lock against other processes on this disk, until it is closed; None when another one has it. At a URL nobody
        can be kept away, and none is needed where each part is run once."""
        if isinstance(self.place, Url):
            return open(os.devnull)
        with writing(self.place / stem):
            return hold(self.place / f"{stem}.lock")

    def _read(self, name: str) -> Note:
        if isinstance(self.place, Url):
            raw = store_of(self.place).read(self.place / name)
        else:
            with reading(self.place / name) as file:
                raw = file.read()
        try:
            return validated(_SCHEMA, parse(raw))
        except ValueError as error:
            raise UserError(f"{self.place / name} is damaged ({error}); remove it, and run that part again") from None


def unlike(settings: dict[str, Any], others: dict[str, Any]) -> str | None:
    """In what two parts differ that belong together, for a message; None when they do not."""
    flat, there = ({**of.get("source", {}), **of} for of in (settings, others))
    for key in [key for key in flat if key != "source"]:
        if flat[key] != there.get(key):
            return f"{key} {json.dumps(there.get(key))}, not {json.dumps(flat[key])}"
    return None
