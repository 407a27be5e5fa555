"""Files as their bytes, whether they are compressed or not: .gz, .bz2 and .xz are unpacked as they are read."""

import bz2
import contextlib
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from saelight.data.shards.disk import reading
from saelight.errors import UserError, one_line

_OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_ZSTANDARD = ".zst"


def kind(path: Path) -> str:
    """The suffix of what is inside, in lower case: `.jsonl` of `a.jsonl.gz`."""
    packed = path.suffix.lower() in (*_OPENERS, _ZSTANDARD)
    return (path.with_suffix("") if packed else path).suffix.lower()


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The bytes in the file at `path`. Raises `UserError` when it cannot be read, is damaged, or ends too early."""
    if path.suffix.lower() == _ZSTANDARD:
        raise UserError(f"{path} is packed by zstd; unpack it (`unzstd`), or pack it by gzip")
    with reading(path) as file:
        try:
            yield _OPENERS[path.suffix.lower()](file) if path.suffix.lower() in _OPENERS else file
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise UserError(f"{path} is damaged or ends too early ({one_line(error)}); copy it again") from None
