"""A hub that stands in for huggingface.co, which no test may reach: real HTTP on loopback, as much of its API as sharing and
loading use, with its status codes and headers.

Repositories are kept in memory, a dict of files for every commit. Large files come by LFS: asked for in a batch, put one by
one, and in no commit until one names them.
"""

import base64
import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

from tests.support.hub_repositories import LARGE, READER, USER, WRITER, Hub, Repository, git_sha, sha256

_PAGE = 3
"""Files that a listing gives at a time; the hub gives 1000."""


@contextlib.contextmanager
def standing_in(cache: Path, token: str | None = WRITER) -> Iterator[Hub]:
    """A hub that answers, and a process that asks it: with a cache and a login of its own, and this token."""
    hub = Hub()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        # What it has read of the environment when it was imported.
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        patch.delenv("HF_TOKEN", raising=False)
        patch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
        if token is not None:
            patch.setenv("HF_TOKEN", token)
        try:
            yield hub
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Who has gone before the answer came, as after another upload's failure, is no fault to write of.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._handle("HEAD")

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_PUT(self) -> None:
        self._handle("PUT")

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _handle(self, method: str) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.hub.asked.append((method, unquote(url.path)))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(iter(self._chunk, b""))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.user = USER if token in (WRITER, READER) else None
        self.writes = token == WRITER
        if self.hub.broken:
            return self._refuse(self.hub.broken, "", "the hub is out of order")
        if token and not self.user:
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if method == "PUT":
            return self._put(*parts[1:])
        if url.path == "/api/repos/create":
            return self._create(json.loads(self.body))
        if url.path == "/api/validate-yaml":
            return self._validate(json.loads(self.body))
        if parts[:2] == ["api", "models"]:
            return self._api("/".join(parts[2:4]), parts[4:])
        if parts[2:3] == ["resolve"]:
            return self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), method)
        if url.path.endswith(".git/info/lfs/objects/batch"):
            return self._batch("/".join(parts[:2]).removesuffix(".git"), json.loads(self.body))
        return self._refuse(404, "", "no such page")

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    # --- answers

    def _answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        for key, value in ({"Content-Type": "application/json", "Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._answer({"error": message}, status, headers)

    def _repo(self, name: str) -> Repository | None:
        """A repository that this account may see, else None, and the hub's answer for that."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and (self.user is None or not name.startswith(f"{self.user}/"))):
            self._refuse(404 if self.user else 401, "RepoNotFound", "Repository not found")
            return None
        return repo

    def _may_write(self, name: str) -> bool:
        if self.user is None:
            self._refuse(401, "", "Invalid username or password.")
        elif not self.writes or not name.startswith(f"{self.user}/"):
            self._refuse(403, "", f"You don't have the rights to write to {name}")
        else:
            return True
        return False

    # --- repositories

    def _create(self, given: dict[str, Any]) -> None:
        name = f"{given['organization']}/{given['name']}"
        if not self._may_write(name):
            return
        if name in self.hub.repos:
            return self._refuse(409, "", "You already created this model repo")
        self.hub.repos[name] = repo = Repository(private=given.get("visibility") == "private")
        repo.commit("main", {".gitattributes": b""})
        self._answer({"url": f"{self.hub.url}/{name}", "id": name})

    def _validate(self, given: dict[str, Any]) -> None:
        _, front, _ = given["content"].split("---\n", 2)
        try:
            assert isinstance(yaml.safe_load(front), dict)
        except (yaml.YAMLError, AssertionError) as error:
            return self._answer({"errors": [{"message": str(error)}], "warnings": []}, 400)
        self._answer({"errors": [], "warnings": []})

    def _api(self, name: str, rest: list[str]) -> None:
        if (repo := self._repo(name)) is None:
            return None
        what, revision = rest[0] if rest else "", rest[1] if len(rest) > 1 else "main"
        if what == "refs":
            shown = [
                [{"name": ref, "ref": f"refs/{kind}/{ref}", "targetCommit": commit} for ref, commit in of.items()]
                for kind, of in (("heads", repo.branches), ("tags", repo.tags))
            ]
            return self._answer({"branches": shown[0], "tags": shown[1], "converts": []})
        if (commit := repo.at(revision)) is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if what == "tree":
            return self._tree(repo, commit)
        if what == "preupload" and self._may_write(name):
            return self._answer(
                {"files": [self._upload_mode(repo, commit, file) for file in json.loads(self.body)["files"]]}
            )
        if what == "commit" and self._may_write(name):
            return self._commit(repo, name, revision)
        if what in ("", "revision"):
            siblings = [{"rfilename": path} for path in repo.commits[commit]]
            return self._answer({"id": name, "sha": commit, "private": repo.private, "siblings": siblings})
        return None

    def _tree(self, repo: Repository, commit: str) -> None:
        files, start = sorted(repo.commits[commit].items()), int(self.query.get("cursor", ["0"])[0])
        entries = [
            {"type": "file", "path": path, "size": len(data), "oid": git_sha(data)}
            | ({"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 100}} if path.endswith(LARGE) else {})
            for path, data in files[start : start + _PAGE]
        ]
        more = f'<{self.hub.url}{urlsplit(self.path).path}?recursive=true&cursor={start + _PAGE}>; rel="next"'
        self._answer(entries, headers={"Link": more} if start + _PAGE < len(files) else {})

    def _resolve(self, name: str, revision: str, path: str, method: str) -> None:
        if (repo := self._repo(name)) is None:
            return None
        if repo.gated:
            return self._refuse(403 if self.user else 401, "GatedRepo", f"Access to model {name} is restricted")
        if (commit := repo.at(revision)) is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if (data := repo.commits[commit].get(path)) is None:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        etag = sha256(data) if path.endswith(LARGE) else git_sha(data)
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", commit)
        if path.endswith(LARGE):
            self.send_header("X-Linked-Etag", f'"{etag}"')
            self.send_header("X-Linked-Size", str(len(data)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if method == "GET":
            end = self.hub.cuts_downloads_at
            self.wfile.write(data[start:end])

    # --- uploads

    def _upload_mode(self, repo: Repository, commit: str, file: dict[str, Any]) -> dict[str, Any]:
        data, large = repo.commits[commit].get(file["path"]), file["path"].endswith(LARGE)
        oid = data and (sha256(data) if large else git_sha(data))
        mode = "lfs" if large else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False} | ({"oid": oid} if oid else {})

    def _batch(self, name: str, given: dict[str, Any]) -> None:
        if (repo := self._repo(name)) is not None and self._may_write(name):
            objects = []
            for one in given["objects"]:
                upload = {"upload": {"href": f"{self.hub.url}/lfs/{name}/{one['oid']}"}}
                objects.append(one | ({} if one["oid"] in repo.large else {"actions": upload}))
            self._answer({"transfer": "basic", "objects": objects})

    def _put(self, user: str, name: str, oid: str) -> None:
        # As a bucket's signed address, it asks for no account.
        if self.hub.uploads_until_it_fails is not None:
            self.hub.uploads_until_it_fails -= 1
            if self.hub.uploads_until_it_fails < 0:
                return self._refuse(403, "", "the signature has expired")
        time.sleep(self.hub.slow_uploads)
        assert sha256(self.body) == oid
        self.hub.repos[f"{user}/{name}"].large[oid] = self.body
        self._answer({})

    def _commit(self, repo: Repository, name: str, branch: str) -> None:
        if branch not in repo.branches:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        files = dict(repo.commits[repo.branches[branch]])
        for line in self.body.splitlines():
            key, value = (entry := json.loads(line))["key"], entry["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = repo.large[value["oid"]]
            else:
                assert key == "header"
        head = repo.commit(branch, files)
        self._answer({"commitUrl": f"{self.hub.url}/{name}/commit/{head}", "commitOid": head})
