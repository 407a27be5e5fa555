"""What the hub that stands in for huggingface.co keeps: repositories with the files of every commit, and what was asked."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USER, WRITER, READER = "user", "hf_writersSecret", "hf_readersSecret"
"""An account, and two tokens of it: one may write."""
LARGE = (".safetensors", ".pt", ".pth", ".npz", ".png")


@dataclass
class Repository:
    """What the hub keeps of one."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    """What was put by LFS, by its SHA-256."""

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        """A new head of a branch; its name."""
        head = hashlib.sha1(repr([len(self.commits), sorted(files)]).encode()).hexdigest()
        self.commits[head] = files
        self.branches[branch] = head
        return head

    def at(self, revision: str) -> str | None:
        """The commit that a revision names."""
        known = self.branches | self.tags | {commit: commit for commit in self.commits}
        return known.get(revision)

    @property
    def files(self) -> dict[str, bytes]:
        """Of the main branch."""
        return self.commits[self.branches["main"]]


class Hub:
    """The hub: its repositories by name, what it was asked, and what is to go wrong."""

    def __init__(self) -> None:
        self.repos: dict[str, Repository] = {}
        self.asked: list[tuple[str, str]] = []
        """Method and path of every request."""
        self.uploads_until_it_fails: int | None = None
        self.slow_uploads = 0.0
        """Seconds that each takes."""
        self.broken: int | None = None
        """The status of every answer."""
        self.cuts_downloads_at: int | None = None
        """Bytes of a file after which the connection is lost."""
        self.url = ""

    def publish(self, repo: str, folder: Path | dict[str, bytes], **settings: Any) -> Repository:
        """A repository with the files of a folder."""
        files = folder
        if isinstance(folder, Path):
            files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
        assert isinstance(files, dict)
        self.repos[repo] = made = Repository(**settings)
        made.commit("main", files)
        return made

    def count(self, method: str, part: str) -> int:
        """How many requests of a method had this in their path."""
        return sum(asked == method and part in path for asked, path in self.asked)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
