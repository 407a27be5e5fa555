"""JSON files that describe what lies beside them, held to a schema."""

import json
import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from saelight.data.shards.disk import reading
from saelight.data.shards.strict_json import parse, validated
from saelight.errors import UserError

T = TypeVar("T")
_MAX_BYTES = 100_000_000


def read_json(path: Path, schema: TypeAdapter[T]) -> T:
    """What the file says. Raises `UserError` when it is missing, no JSON, or not of the schema."""
    with reading(path) as file:
        raw = file.read(_MAX_BYTES + 1)
    try:
        if len(raw) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES} bytes")
        return validated(schema, parse(raw))
    except ValueError as e:
        raise UserError(f"{path} is damaged, or something else ({e}); copy it again") from None


def plain(value: Any) -> Any:
    """A value from such a file as a note: itself, or as text where it is long."""
    text = json.dumps(value)
    return value if len(text) < 1000 else text[:1000] + "…"


def file_size(path: Path) -> int:
    """Bytes of a file. Raises `UserError` when there is none, or it may not be read."""
    with reading(path) as file:
        return os.fstat(file.fileno()).st_size
