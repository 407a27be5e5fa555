"""From a sweep file, or its folder, to groups that are planned and run: what the commands have in common."""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.sweep.execute import devices as dev
from saelight.sweep.execute.forecast import forecast
from saelight.sweep.execute.launch import LAUNCHERS, Launcher, find
from saelight.sweep.execute.oversize import too_large
from saelight.sweep.execute.progress_line import Progress
from saelight.sweep.execute.runner import Stopped, run
from saelight.sweep.execute.work import TOGETHER, Listed, Work
from saelight.sweep.plan.entry import Entry, Resolved
from saelight.sweep.plan.points import Point, expand, select
from saelight.sweep.plan.spec import Sweep, read
from saelight.sweep.plan.trying import try_out
from saelight.sweep.store.runner_lock import only_runner
from saelight.sweep.store.sweep_folder import Group, Index, SweepFolder

_TRIED = 256
"""The most random trials that a search is tried by before it begins."""
_SHOWN = 5
"""The most failures that are told one by one."""


@dataclass
class Request:
    """What the command line asked for."""

    file: str
    out: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    pattern: str | None = None
    limit: int | None = None
    max_saes: int | None = None
    devices: str = "auto"
    launcher: str = "local"
    launcher_options: dict[str, Any] = field(default_factory=dict)
    parallel: int | None = None
    wait: bool = True
    resume: bool = False
    journal: str | None = None
    cluster: str | None = None


class Session:
    """One sweep, its folder, and the launcher that is to run it."""

    launcher: Launcher
    """Made by `prepare`."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._launcher = find(request.launcher)
        if not (request.wait or self._launcher.detaches):
            able = " or ".join(name for name, launcher in LAUNCHERS.items() if launcher.detaches)
            raise UserError(f"--no-wait goes with --launcher {able}: add that, or drop it")
        self.sweep: Sweep | None = None
        if Path(request.file).is_dir():
            if request.out or request.overrides:
                raise UserError(f"{request.file} is expanded already: --out and --set go with the sweep file")
            self.folder = SweepFolder.existing(request.file)
        else:
            self.sweep = read(request.file)
            self.folder = SweepFolder(request.out or Path("runs") / self.sweep.name)
        self.index = Index("", {})
        self.notes: list[str] = []
        self.total = 0
        """Points of the whole sweep."""
        self._tried = Resolved()
        """Random points of a search."""

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder against other runners."""
        return only_runner(self.folder)

    def prepare(self) -> "Session":
        """Expand, check and group, in memory. Raises `UserError`."""
        if self.folder.index_file.is_file():
            self.index = self.folder.read()
            self.folder.refuse_edited(self.index)
        if self.sweep is None:
            self._choose_among(self.index)
        else:
            self._expand(self.sweep)
        devices = dev.choose(self.request.devices, dev.find())
        options = self.request.launcher_options
        self.launcher = self._launcher(self.folder, devices, self.request.parallel, **options)
        if self._to_be_grouped():
            limit, workers = self.launcher.memory_limit, len(self.launcher.workers)
            self.folder.plan(self.index, self.max_saes, limit, workers, self.launcher.kinds)
        return self

    def _to_be_grouped(self) -> bool:
        """A search groups its trials as it asks them, and groups that were expanded stay as they are."""
        if self.sweep is not None:
            return not self._searches
        grouped = {member for group in self.index.groups.values() for member in group.members}
        return bool(self._chooses or self.request.max_saes or set(self.index.wanted) - grouped)

    @property
    def _searches(self) -> bool:
        return self.sweep is not None and self.sweep.method == "bayes"

    @property
    def _chooses(self) -> bool:
        return self.request.pattern is not None or self.request.limit is not None

    @property
    def max_saes(self) -> int | None:
        """The most SAEs in a group."""
        return self.request.max_saes or (self.sweep.max_saes if self.sweep else None)

    def _expand(self, sweep: Sweep) -> None:
        if sweep.method == "bayes":
            return self._try_out(sweep)
        from saelight.sweep.plan.resolve import resolve  # torch

        points, notes = expand(sweep, self.request.overrides)
        self.total = len(points)
        chosen = select(points, self.request.pattern, self.request.limit)
        resolved = resolve(sweep, chosen)
        self.index.name, self.index.metric = sweep.name, sweep.metric
        self.notes = [*sweep.notes, *notes, *resolved.notes, *self.folder.merge(self.index, resolved)]

    def _try_out(self, sweep: Sweep) -> None:
        """Check a search by random points: what its trials are, only the study knows."""
        if self._chooses:
            raise UserError("--filter and --limit choose among points; a search makes its own: lower run_cap")
        if sweep.run_cap is None:
            raise UserError(f"{sweep.file}: method bayes has no end of its own: add `run_cap: 40`, the number of trials")
        self._tried = try_out(sweep, self.request.overrides, min(self.max_saes or TOGETHER, sweep.run_cap, _TRIED))
        self.index.name, self.index.metric = sweep.name, sweep.metric
        self.index.missing = self._tried.missing
        self.notes = [*sweep.notes, *self._tried.notes]

    def _choose_among(self, index: Index) -> None:
        if index.trials:
            raise UserError(f"{self.folder.path} is a search's folder: give its sweep file, with --out {self.folder.path}")
        names = {name: key for key in index.asked for name in index.entries[key].names}
        self.total, index.wanted = len(names), index.asked
        if self._chooses:
            points = select([Point(name, {}, 0) for name in names], self.request.pattern, self.request.limit)
            index.wanted = list(dict.fromkeys(names[point.name] for point in points))

    def to_run(self) -> list[Group]:
        """The groups that have something left to train."""
        return self.folder.unfinished(self.index)

    def entries(self, group: Group) -> list[Entry]:
        """A group's points."""
        return [self.index.entries[key] for key in group.members]

    def summary(self) -> str:
        """What the sweep comes to, in some lines."""
        if self._searches:
            assert self.sweep is not None
            lines = [f"{self.index.name}: a search of {self.sweep.run_cap} trials in {self.folder.path}"]
            return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
        distinct = len(self.index.wanted)
        points = sum(len(self.index.entries[key].names) for key in self.index.wanted)
        chosen = f" of {self.total}" if points != self.total else ""
        lines = [f"{self.index.name}: {points}{chosen} points" + (f", {distinct} distinct" if distinct != points else "")]
        groups = len(self.index.groups)
        lines[0] += f", {groups} group{'s' * (groups != 1)} in {self.folder.path}/groups"
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def dry_run(self) -> str:
        """What would run where, and what it would take."""
        groups = [(group, self.entries(group)) for group in self.to_run()]
        if self.request.cluster is not None:
            return "\n".join([self.summary(), self._on_cluster(self.request.cluster, [e for _, of in groups for e in of])])
        if self._searches:
            lines = [self.summary(), *self._search_forecast()]
        elif groups:
            lines = [self.summary(), forecast(groups, self.launcher)]
        else:
            lines = [self.summary(), "to run: nothing: all that is asked for has been trained"]
        preview = self.launcher.preview([group for group, _ in groups])
        return "\n".join([*lines, *([preview] if preview else [])])

    def _on_cluster(self, text: str, entries: list[Entry]) -> str:
        from saelight.sweep.execute.stated_cluster import cluster_plan, parse_cluster

        cluster = parse_cluster(text)
        if not entries:
            raise UserError("--cluster says what a sweep's points take, and a search has none yet; drop it, or use a grid")
        return cluster_plan(entries, self.index.run_configs, cluster, self.max_saes)

    def _search_forecast(self) -> list[str]:
        """What is known of a search: how many trials there will be at once, and what a group of random ones takes."""
        assert self.sweep is not None
        assert self.sweep.run_cap is not None
        together = min(self.max_saes or TOGETHER, self.sweep.run_cap)
        example = SweepFolder(self.folder.path)
        index = Index(self.index.name, self.index.metric, run_configs=self._tried.run_configs)
        groups = example.add(index, self._tried.entries[:together], None, None, kinds=self.launcher.kinds)
        n = math.ceil(self.sweep.run_cap / together)
        where = f"{min(n, len(self.launcher.workers))} at once" if len(self.launcher.workers) > 1 else "one at a time"
        metric = self.index.metric
        said = [
            f"{self.sweep.run_cap} trials, asked for {together} at a time as they learn from {metric['name']} "
            f"({metric['goal']}): {n} groups or more, {where}; one of random trials:"
        ]
        entries = {entry.hash: entry for entry in self._tried.entries}
        members = [(group, [entries[key] for key in group.members]) for group in groups[:1]]
        return [*said, forecast(members, self.launcher, times=n)]

    def run(self) -> int:
        """Train all that is left; the exit code. Interrupted: 130."""
        self.launcher.check()
        if self.index.missing:
            raise UserError(self.index.missing[0])
        if large := too_large([(group, self.entries(group)) for group in self.to_run()], self.launcher):
            raise UserError(next(iter(large.values())))
        begun = [g.id for g in self.index.groups.values() if self.folder.begun(g.id)]
        if begun and not self.request.resume:
            raise UserError(
                f"{self.folder.path} was begun ({len(begun)} of {len(self.index.groups)} groups): go on with "
                "--resume, or give --out another folder"
            )
        self.folder.commit(self.index)
        groups = self.to_run()
        print(self.summary(), flush=True)
        if finished := len(self.index.groups) - len(groups):
            print(f"finished or not asked for: {finished} groups; to run: {len(groups)}", flush=True)
        work = self._work(groups)
        try:
            ok = run(self.folder, self.index, work, self.launcher, Progress(), self.request.wait)
        except Stopped:
            print("stopped; the same command with --resume goes on", flush=True)
            return 130
        if not self.request.wait:
            print(
                f"submitted: `saelight sweep status {self.folder.path}` tells how it goes; the same command with "
                "--resume in place of --no-wait waits for it, and tries again what failed",
                flush=True,
            )
            return 0
        for line in [*work.summary(), *_shortened(work.failures())]:
            print(line, flush=True)
        print(f"results: {self.folder.path}/results.csv; a table: saelight sweep status {self.folder.path}", flush=True)
        return 0 if ok and not work.failures() else 1

    def _work(self, groups: list[Group]) -> Work:
        if self.sweep is None or not self._searches:
            return Listed(groups)
        from saelight.sweep.execute.search import Search

        return Search(
            self.sweep,
            self.folder,
            self.index,
            self.request.overrides,
            self.request.journal,
            self.max_saes,
            self.launcher.memory_limit,
            len(self.launcher.workers),
            self.launcher.kinds,
        )


def _shortened(failures: list[str]) -> list[str]:
    more = [f"and {len(failures) - _SHOWN} more failed"] if len(failures) > _SHOWN else []
    return [*(f"failed: {line}" for line in failures[:_SHOWN]), *more]
