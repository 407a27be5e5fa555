"""A sweep's folder: the index of its points and groups, a YAML per group, and the groups' run folders.

    index.json   groups/group-000.yaml   runs/group-000/   state.jsonl   results.csv|parquet|json

A group whose run has begun is frozen: what comes later makes new groups.
"""

import copy
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.files import check_name, is_locked, write_text
from saelight.parsing import yaml_files
from saelight.run import run_folder
from saelight.sweep.plan import configs
from saelight.sweep.plan.entry import Entry, Resolved
from saelight.sweep.plan.groups import memory_of, split
from saelight.sweep.store.journal import Journal

FORMAT = "saelight-sweep"
VERSION = 2
_GROUP = re.compile(r"group-\d{3,}")


@dataclass
class Group:
    """SAEs that share batches, and how much that takes."""

    id: str
    members: list[str]
    """Hashes of its entries."""
    sha256: str
    """Of its YAML, as it was written."""
    memory: int
    """Predicted bytes above the process's own."""
    tokens: int | None
    """Tokens it trains on."""


@dataclass
class Index:
    """What a sweep consists of."""

    name: str
    metric: dict[str, str]
    entries: dict[str, Entry] = field(default_factory=dict)
    """By hash."""
    run_configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Hashes of the sweep file's points, as it was last expanded."""
    wanted: list[str] = field(default_factory=list)
    """Of these, what the last call chose."""
    missing: list[str] = field(default_factory=list)
    """Why some data could not be read."""
    trials: dict[str, list[int]] = field(default_factory=dict)
    """Of a search, by hash: the trials that an entry is the answer to."""
    failed: dict[str, str] = field(default_factory=dict)
    """Of a search, by trial: why it came to nothing."""


class SweepFolder:
    """The folder of one sweep."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.index_file = self.path / "index.json"
        self._texts: dict[str, str] = {}
        """YAMLs of planned groups, by group."""

    @classmethod
    def existing(cls, path: str | Path) -> "SweepFolder":
        """The folder of a sweep that was expanded. Raises `UserError` when it is none."""
        folder = cls(path)
        if not folder.index_file.is_file():
            raise UserError(f"{path} is no sweep's folder, it has no index.json: make one with `saelight sweep expand FILE`")
        return folder

    def yaml(self, group: str) -> Path:
        """A group's config."""
        return self.path / "groups" / f"{group}.yaml"

    def run(self, group: str) -> Path:
        """A group's run folder."""
        return self.path / "runs" / group

    def begun(self, group: str) -> bool:
        """Whether a group's training was ever started, or a job of Slurm's is to start it when there is room."""
        return self.run(group).is_dir() or group in self._queued

    @cached_property
    def _queued(self) -> dict[str, str]:
        return Journal(self.path).jobs()

    def finished(self, group: str) -> bool:
        """Whether a group's run has come to its end, not to that of `trainer.max_time`."""
        path = self.run(group) / "results.jsonl"
        return path.is_file() and not any(json.loads(row)["state"] == "stopped" for row in path.read_text().splitlines())

    def read(self) -> Index:
        """The index. Raises `UserError` when it is not as `commit` wrote it."""
        file = self.index_file
        try:
            content = json.loads(file.read_text())
            if content.pop("format") != FORMAT or content.pop("version") != VERSION:
                raise UserError(f"{file} is of another version of saelight: expand the sweep into a new folder")
            if content.pop("sha256") != _digest(content):
                raise UserError(f"{file} was edited or is damaged: expand the sweep into a new folder")
            content["entries"] = {key: Entry(**entry) for key, entry in content["entries"].items()}
            content["groups"] = {key: Group(**group) for key, group in content["groups"].items()}
            index = Index(**content)
        except UserError:
            raise
        except (OSError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise UserError(f"{file} cannot be read ({error}): expand the sweep into a new folder") from None
        for key, group in index.groups.items():
            if key != group.id or not _GROUP.fullmatch(key):
                raise UserError(f"{file} has a group {key[:40]!r}, which none of saelight's has: expand the sweep anew")
        for entry in index.entries.values():
            check_name(entry.name, f"{file}: the point's name")
        return index

    def refuse_edited(self, index: Index) -> None:
        """Raise `UserError` when a group's YAML is not as the sweep wrote it."""
        for group in index.groups.values():
            yaml = self.yaml(group.id)
            try:
                text = yaml.read_bytes()
            except OSError as error:
                raise UserError(
                    f"{yaml} cannot be read ({error.strerror}): expand the sweep again with --out {self.path}"
                ) from None
            if hashlib.sha256(text).hexdigest() != group.sha256:
                begun = ", after its run began," if self.begun(group.id) else ""
                raise UserError(
                    f"{yaml} was edited{begun} and no longer fits the index: change the sweep file and "
                    "expand again, or run the edited one alone with `saelight fit --config`"
                )

    def merge(self, index: Index, resolved: Resolved) -> list[str]:
        """Take the resolved points into `index`; a point that is there already keeps its seed. Returns what to say."""
        frozen = {member for group in index.groups.values() if self.begun(group.id) for member in group.members}
        fresh = {entry.hash: entry for entry in resolved.entries}
        for key, entry in fresh.items():
            if (old := index.entries.get(key)) is not None:
                entry.seed = old.seed
                if key in frozen:
                    # Its weights are in a folder of this name, its config under this key.
                    entry.name, entry.run_config = old.name, old.run_config
        gone = [key for key in index.entries if key in frozen and key not in fresh]
        index.entries = fresh | {key: index.entries[key] for key in gone}
        used = {entry.run_config for entry in index.entries.values()}
        index.run_configs = {k: v for k, v in (index.run_configs | resolved.run_configs).items() if k in used}
        index.asked = index.wanted = list(fresh)
        index.missing = sorted(set(resolved.missing))
        return [f"{len(gone)} earlier points are no longer asked for: they stay, and are not gone on with"] if gone else []

    def plan(
        self,
        index: Index,
        max_saes: int | None,
        max_bytes: int | None,
        at_least: int = 1,
        kinds: Sequence[str] = ("cpu",),
    ) -> None:
        """Group the wanted points that no begun run holds. Nothing is written before `commit`."""
        frozen = {key: group for key, group in index.groups.items() if self.begun(key)}
        taken = {member for group in frozen.values() for member in group.members}
        index.groups = frozen
        entries = [index.entries[key] for key in index.wanted if key not in taken]
        self.add(index, entries, max_saes, max_bytes, at_least, kinds)

    def add(
        self,
        index: Index,
        entries: list[Entry],
        max_saes: int | None,
        max_bytes: int | None,
        at_least: int = 1,
        kinds: Sequence[str] = ("cpu",),
        callbacks: Callable[[list[Entry]], list[dict[str, Any]]] | None = None,
    ) -> list[Group]:
        """Group `entries` and add the groups to the index; `callbacks` gives what a group's run has beside the base's."""
        number = 1 + max((int(key.rpartition("-")[2]) for key in index.groups), default=-1)
        added = []
        for i, members in enumerate(split(entries, max_saes, max_bytes, at_least, kinds), number):
            _tell_apart(members)
            config = index.run_configs[members[0].run_config]
            text = yaml_files.dump(config_of(config, members, callbacks(members) if callbacks else ()))
            group = Group(
                f"group-{i:03d}",
                [entry.hash for entry in members],
                _sha256(text),
                memory_of(members, kinds),
                members[0].tokens,
            )
            index.groups[group.id] = group
            self._texts[group.id] = text
            added.append(group)
        return added

    def add_point(self, index: Index, resolved: Resolved) -> Group:
        """Take in one more point, as a group of its own though it were there. Nothing is written before `commit`."""
        [entry] = resolved.entries
        entry = index.entries.setdefault(entry.hash, entry)
        index.run_configs |= resolved.run_configs
        index.wanted = list(dict.fromkeys([*index.wanted, entry.hash]))
        return self.add(index, [entry], None, None)[0]

    def commit(self, index: Index) -> None:
        """Write the index, and the YAMLs of the groups that were planned."""
        for path in (self.path / "groups").glob("group-*.yaml"):
            if path.stem not in index.groups:
                path.unlink()
        for group, text in self._texts.items():
            write_text(self.yaml(group), text, durable=False)
        self._texts.clear()
        # As it will be read: keys that are numbers come back as text.
        content = json.loads(json.dumps(asdict(index)))
        content = {"format": FORMAT, "version": VERSION, "sha256": _digest(content)} | content
        write_text(self.index_file, json.dumps(content, indent=1) + "\n")

    def unfinished(self, index: Index) -> list[Group]:
        """Groups with a wanted point whose run has not come to its end."""
        wanted = set(index.wanted)
        return [g for g in index.groups.values() if wanted & set(g.members) and not self.finished(g.id)]

    def lock(self, group: str) -> Path:
        """The file that a group's process holds locked for as long as it lives."""
        return self.run(group).with_suffix(".lock")

    def is_held(self, group: str) -> bool:
        """Whether a process of this machine trains the group now."""
        return is_locked(self.lock(group), unknown=True)

    def reset(self, group: str) -> None:
        """Forget a run that left no checkpoint: there is nothing to go on from."""
        folder = self.run(group)
        if folder.is_dir() and not run_folder.checkpoint(folder).is_file() and not self.finished(group):
            shutil.rmtree(folder)


def config_of(run_config: dict[str, Any], members: list[Entry], callbacks: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """The complete config that trains `members`: what `saelight fit --config` takes."""
    config = dict.fromkeys(key for key in ("trainer", "model", "data") if key in run_config) | copy.deepcopy(run_config)
    for callback in callbacks:
        configs.add_callback(config, callback)
    saes = {}
    for entry in members:
        fields = {key: value for key, value in entry.sae.items() if key != "class_path"}
        saes[entry.name] = {"class_path": entry.sae["class_path"], "init_args": fields | {"seed": entry.seed}}
    return config | {"model": {**(config.get("model") or {}), "saes": saes}}


def _tell_apart(members: list[Entry]) -> None:
    """An entry kept from earlier may have the name that another one has now."""
    seen: set[str] = set()
    for entry in members:
        if entry.name in seen:
            entry.name = f"{entry.name[:70]}-{entry.hash[:8]}"
        seen.add(entry.name)


def _digest(content: dict[str, Any]) -> str:
    return _sha256(configs.canonical(content))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
