"""Addresses of files and folders elsewhere, as `pathlib.Path` is one on this machine."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from saelight.errors import UserError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)


class Url:
    """`s3://bucket/folder`. Its `/`, `name` and `parent` are a path's; what it shows holds no password and no signature.

    Of `https://host/folder?signature` what follows the `?` goes behind the name of every file in the folder.
    """

    def __init__(self, text: str) -> None:
        split = _URL.fullmatch(text)
        assert split is not None
        self.scheme, rest = split[1].lower(), split[2]
        self._query = ""
        if self.is_web:
            rest, mark, query = rest.partition("?")
            self._query = mark + query
        self._rest = rest.rstrip("/")
        if not self._rest or not text.isprintable():
            raise UserError(f"{text!r} is no address of a folder; write it as {self.scheme}://PLACE/FOLDER")

    @property
    def full(self) -> str:
        """What to ask for."""
        return f"{self.scheme}://{self._rest}{self._query}"

    @property
    def is_web(self) -> bool:
        """Whether it is a web server's: files, but no folders that list them."""
        return self.scheme in ("http", "https")

    @property
    def name(self) -> str:
        return self._rest.rpartition("/")[2]

    @property
    def parent(self) -> "Url":
        return self._with(self._rest.rpartition("/")[0] or self._rest)

    @property
    def root(self) -> str:
        """What all addresses at the same place have in common: the bucket, or the host."""
        return f"{self.scheme}://{self._rest.partition('/')[0]}"

    def __truediv__(self, name: str) -> "Url":
        return self._with(f"{self._rest}/{name}")

    def _with(self, rest: str) -> "Url":
        return Url(f"{self.scheme}://{rest}{self._query}")

    def __str__(self) -> str:
        host, slash, rest = self._rest.partition("/")
        return f"{self.scheme}://{host.rpartition('@')[2]}{slash}{rest}"

    def __repr__(self) -> str:
        return f"Url({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Url) and self.full == other.full

    def __hash__(self) -> int:
        return hash(self.full)


def located(path: "str | Path | Url") -> Path | Url:
    """Where `path` is: `file://` and paths on this machine, everything else with a scheme elsewhere."""
    if isinstance(path, Path | Url):
        return path
    found = _URL.fullmatch(path)
    if found is None:
        return Path(path)
    return Path(unquote(urlsplit(path).path)) if found[1].lower() in ("file", "local") else Url(path)
