"""A hub on loopback that gives out the files of a folder: real HTTP, as much of huggingface.co's API as reading data sets
and models takes. The folder has `datasets/OWNER/NAME` and `models/OWNER/NAME` in it."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0" * 40
REVISIONS = ("main", "v2", COMMIT)


@contextlib.contextmanager
def giving_out(root: Path) -> Iterator[str]:
    """The hub's address, as long as it answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"root": root}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parts = unquote(url.path).strip("/").split("/")
        if parts[0] == "api" and len(parts) > 3:
            return self._about(
                self.root.joinpath(*parts[1:4]), parts[4:], "true" in parse_qs(url.query).get("recursive", [])
            )
        kind = "models" if parts[0] != "datasets" else parts.pop(0)
        if parts[2:3] == ["resolve"]:
            return self._file(self.root.joinpath(kind, *parts[:2], *parts[4:]))
        return self._refuse("RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        wanted = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        repo = self.root.joinpath(*urlsplit(self.path).path.strip("/").split("/")[1:4])
        self._answer([_entry(repo, repo / path) for path in wanted if (repo / path).exists()])

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _about(self, repo: Path, rest: list[str], recursive: bool) -> None:
        what, revision, *inside = [*rest, "", "main"][: max(2, len(rest))]
        if not repo.is_dir():
            return self._refuse("RepoNotFound")
        if revision not in REVISIONS:
            return self._refuse("RevisionNotFound")
        if what == "tree":
            folder = repo.joinpath(*inside)
            return self._answer(
                [_entry(repo, path) for path in sorted(folder.rglob("*") if recursive else folder.glob("*"))]
            )
        siblings = [{"rfilename": path.relative_to(repo).as_posix()} for path in repo.rglob("*") if path.is_file()]
        name = "/".join(repo.parts[-2:])
        return self._answer({"id": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})

    def _file(self, path: Path) -> None:
        if not path.is_file():
            return self._refuse("EntryNotFound")
        data, status = path.read_bytes(), 200
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if given := self.headers.get("Range"):
            first, _, last = given.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(data)) + 1, len(data))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            data, status = data[start:stop], 206
        return self._send(status, data, headers)

    def _answer(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, code: str) -> None:
        self._send(404, b"{}", {"X-Error-Code": code, "X-Repo-Commit": COMMIT})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _entry(repo: Path, path: Path) -> dict[str, object]:
    """A file or a folder, as listings have it."""
    about: dict[str, object] = {"path": path.relative_to(repo).as_posix(), "oid": COMMIT, "size": 0, "type": "directory"}
    return about | ({"type": "file", "size": path.stat().st_size} if path.is_file() else {})
