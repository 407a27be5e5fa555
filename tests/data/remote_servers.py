"""An HTTP server of a folder on loopback, with parts of files, and faults on demand."""

import hashlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

CUT, STALL, TRUNCATE, WHOLE = "cut", "stall", "truncate", "whole"
"""The connection ends in the middle of the body; nothing comes for a while; a correct answer of too few bytes; all of the
file in place of a part."""


class Asked(NamedTuple):
    """One request."""

    method: str
    name: str
    """Of the file."""
    span: tuple[int, int] | None
    """Bytes [start, end)."""


class Site(http.server.ThreadingHTTPServer):
    """Serves `folder`; `fault` says of each request what goes wrong: an HTTP status, one of the words above, or None."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.fault: Callable[[Asked], int | str | None] = lambda asked: None
        self.asked: list[Asked] = []
        self.at_once, self.most_at_once = 0, 0
        self.lock = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """Whoever stops reading ends the connection."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(folder: Path) -> Iterator[Site]:
    site = Site(folder)
    threading.Thread(target=site.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield site
    finally:
        site.shutdown()
        site.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_GET(self) -> None:
        self._answer("GET")

    def _answer(self, method: str) -> None:
        site = self.server
        with site.lock:
            site.at_once += 1
            site.most_at_once = max(site.most_at_once, site.at_once)
        try:
            self._send(method)
        except OSError:
            self.close_connection = True
        finally:
            with site.lock:
                site.at_once -= 1

    def _send(self, method: str) -> None:
        site = self.server
        file = site.folder / self.path.partition("?")[0].lstrip("/")
        span = None
        if found := self.headers.get("Range"):
            first, last = found.removeprefix("bytes=").split("-")
            span = (int(first), int(last) + 1)
        asked = Asked(method, file.name, span)
        site.asked.append(asked)
        fault = site.fault(asked)
        if not file.is_file() or isinstance(fault, int):
            self._head(fault if isinstance(fault, int) else 404, 0)
            return
        raw = file.read_bytes()
        body = raw if span is None or fault == WHOLE else raw[span[0] : span[1]]
        if span is not None and not body:
            self._head(416, 0)
            return
        if fault == TRUNCATE:
            body = body[:-1]
        if fault == STALL:
            time.sleep(1)
        self._head(200 if span is None or fault == WHOLE else 206, len(body), hashlib.md5(raw).hexdigest())
        if method == "GET":
            self.wfile.write(body[: len(body) // 2] if fault == CUT else body)
            self.close_connection = fault == CUT

    def _head(self, status: int, length: int, tag: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if tag:
            self.send_header("ETag", f'"{tag}"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass
