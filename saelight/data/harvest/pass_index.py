"""Which groups of windows the runs of one machine have made, who makes one now, and who has had it.

An SQLite file beside the groups: its transactions survive any kill. Who lives is known by locks, which go with their
process, so that nobody waits for the dead. A group that has left memory is remembered until every reader has passed it:
nobody writes it again for those who have had it.
"""

import contextlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Collection, Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from saelight.files import hold, is_locked

_STALE = 60.0
"""Seconds without a sign of life after which nobody waits any longer for a maker that is still there."""
_TABLES = """
CREATE TABLE IF NOT EXISTS readers (name TEXT PRIMARY KEY, identity TEXT, hooks TEXT);
CREATE TABLE IF NOT EXISTS groups (
    key TEXT PRIMARY KEY, identity TEXT, hooks TEXT, maker TEXT, bytes INTEGER DEFAULT 0, number INTEGER);
CREATE TABLE IF NOT EXISTS taken (
    key TEXT REFERENCES groups ON DELETE CASCADE, reader TEXT REFERENCES readers ON DELETE CASCADE,
    PRIMARY KEY (key, reader));
"""
_WANTED = """EXISTS (SELECT 1 FROM readers WHERE readers.identity = groups.identity AND NOT EXISTS (
    SELECT 1 FROM taken WHERE taken.key = groups.key AND taken.reader = readers.name))"""
"""Whether a reader of a group has not yet had it."""


class State(Enum):
    """How a group of windows stands for a reader that asks for it."""

    THERE = "to be read"
    OURS = "to be made, for all"
    OTHERS = "being made by another"
    GONE = "to be made, for this reader alone"


class Answer(NamedTuple):
    """What a reader is told."""

    state: State
    hooks: tuple[str, ...] = ()
    """Of a group that is to be made for all: the places that anyone wants."""


class PassIndex:
    """One reader's view of the groups.

    Args:
        folder: Where the groups lie.
        identity: Of the pass: those of another one have no rows in common with it.
        hooks: The places whose rows this reader wants.
        limit: Bytes that all groups together may take.

    Raises `OSError` or `sqlite3.Error`, as all methods do, where the folder cannot be used (any longer).
    """

    def __init__(self, folder: Path, identity: str, hooks: Collection[str], limit: int) -> None:
        self.folder, self._limit = folder, limit
        self._identity, self._hooks, self._name = identity, set(hooks), uuid.uuid4().hex
        with self._transaction() as db:
            for statement in _TABLES.split(";"):
                db.execute(statement)
            self._held = hold(self._lock(self._name))
            db.execute("INSERT INTO readers VALUES (?, ?, ?)", (self._name, identity, json.dumps(sorted(hooks))))

    def path(self, key: str) -> Path:
        """Where a group's rows lie."""
        return self.folder / f"{key}.safetensors"

    @property
    def partial(self) -> Path:
        """Where this reader writes."""
        return self._partial(self._name)

    def ask(self, key: str, ahead: bool = False) -> Answer:
        """How a group stands. One that is `OURS` must be `publish`ed or `release`d.

        Args:
            ahead: Asked before its turn: it counts as had only when it is asked for again.
        """
        with self._transaction() as db:
            row = db.execute("SELECT hooks, maker, bytes FROM groups WHERE key = ?", (key,)).fetchone()
            if row is None:
                return self._claim(db, key)
            hooks, maker, size = row
            if maker == self._name:  # another thread's; a group is not written twice at once
                return Answer(State.GONE)
            if maker is not None and not self._works(maker):
                return self._claim(db, key)
            has_ours = self._hooks <= {*json.loads(hooks)}
            if maker is not None and has_ours:
                return Answer(State.OTHERS)
            if not ahead:
                db.execute("INSERT OR IGNORE INTO taken VALUES (?, ?)", (key, self._name))
            if size or not has_ours:
                return Answer(State.THERE if has_ours else State.GONE)
            self._bury(db)
            if db.execute(f"DELETE FROM groups WHERE key = ? AND NOT {_WANTED}", (key,)).rowcount:
                return Answer(State.GONE)
            return self._claim(db, key)

    def reserve(self, key: str, size: int) -> bool:
        """Make room for a group that this reader has made; False where it is no longer this reader's, or too large.

        What every reader has had goes first, then the oldest: who still wants those makes them anew.
        """
        with self._transaction() as db:
            self._bury(db)
            ours = db.execute("SELECT 1 FROM groups WHERE key = ? AND maker = ?", (key, self._name)).fetchone()
            if ours is None or size > self._limit:
                return False
            held = db.execute("SELECT SUM(bytes) FROM groups").fetchone()[0]
            oldest = f"SELECT key, bytes FROM groups WHERE bytes > 0 AND maker IS NULL ORDER BY {_WANTED}, number"
            for other, others in db.execute(oldest).fetchall():
                if held + size <= self._limit:
                    break
                self.path(other).unlink(missing_ok=True)
                db.execute("UPDATE groups SET bytes = 0 WHERE key = ?", (other,))
                held -= others
            db.execute(f"DELETE FROM groups WHERE bytes = 0 AND maker IS NULL AND NOT {_WANTED}")
            if held + size > self._limit:  # the rest is being written
                return False
            db.execute("UPDATE groups SET bytes = ? WHERE key = ?", (size, key))
            return True

    def publish(self, key: str) -> None:
        """What lies at `partial` is the group that room was made for."""
        with self._transaction() as db:
            if db.execute("UPDATE groups SET maker = NULL WHERE key = ? AND maker = ?", (key, self._name)).rowcount:
                self.partial.replace(self.path(key))

    def release(self, key: str) -> None:
        """A group that was `OURS` does not become readable: another reader may make it."""
        with self._transaction() as db:
            db.execute("DELETE FROM groups WHERE key = ? AND maker = ?", (key, self._name))
        self.partial.unlink(missing_ok=True)

    def works(self) -> None:
        """Give a sign of life, while a group is made."""
        os.utime(self._lock(self._name))

    def leave(self) -> None:
        """Read no more."""
        try:
            with self._transaction() as db:
                self._remove(db, self._name)
        finally:
            if self._held is not None:
                self._held.close()

    def _claim(self, db: sqlite3.Connection, key: str) -> Answer:
        self._bury(db)
        wanted = db.execute("SELECT hooks FROM readers WHERE identity = ?", (self._identity,)).fetchall()
        hooks = tuple(sorted({hook for (of_one,) in wanted for hook in json.loads(of_one)}))
        db.execute(
            "INSERT INTO groups (key, identity, hooks, maker, number) "
            "VALUES (?, ?, ?, ?, (SELECT COALESCE(MAX(number), 0) + 1 FROM groups)) ON CONFLICT (key) DO UPDATE "
            "SET hooks = excluded.hooks, maker = excluded.maker, number = excluded.number, bytes = 0",
            (key, self._identity, json.dumps(hooks), self._name),
        )
        self.works()
        return Answer(State.OURS, hooks)

    def _works(self, reader: str) -> bool:
        """Whether a reader lives, and has given a sign of it lately."""
        lock = self._lock(reader)
        return is_locked(lock, unknown=True) and time.time() - lock.stat().st_mtime < _STALE

    def _bury(self, db: sqlite3.Connection) -> None:
        """Forget the dead, and what they were making."""
        for (name,) in db.execute("SELECT name FROM readers").fetchall():
            if name != self._name and not is_locked(self._lock(name), unknown=True):
                self._remove(db, name)

    def _remove(self, db: sqlite3.Connection, reader: str) -> None:
        db.execute("DELETE FROM readers WHERE name = ?", (reader,))
        db.execute("DELETE FROM groups WHERE maker = ?", (reader,))
        for path in (self._partial(reader), self._lock(reader)):
            path.unlink(missing_ok=True)

    def _lock(self, reader: str) -> Path:
        return self.folder / f"{reader}.lock"

    def _partial(self, reader: str) -> Path:
        return self.folder / f"{reader}.partial"

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """The file to oneself. A connection each: threads and forks may have none in common."""
        db = sqlite3.connect(self.folder / "index.sqlite", timeout=30, isolation_level=None)
        with contextlib.closing(db):
            db.execute("PRAGMA foreign_keys = ON")
            db.execute("PRAGMA synchronous = OFF")  # it need not outlive the machine
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
