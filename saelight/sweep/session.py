"""From a sweep file, or its folder, to groups that are planned and run: what the commands have in common."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.sweep import devices as dev
from saelight.sweep.entries import Entry, resolve
from saelight.sweep.folder import Group, Index, SweepFolder
from saelight.sweep.forecast import forecast
from saelight.sweep.points import expand, select
from saelight.sweep.runner import Stopped, only_runner, run
from saelight.sweep.spec import Sweep, read

_SHARE = 0.8
"""Of a device's memory, for runs; the rest is the system's, and the prediction's error."""


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
    parallel: int | None = None
    resume: bool = False


class Session:
    """One sweep, its folder, and the devices it is to run on."""

    def __init__(self, request: Request) -> None:
        self.request = request
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
        self.devices: list[dev.Device] = []

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
        self.devices = dev.choose(self.request.devices, dev.find())
        workers = min(self.request.parallel or len(self.devices), len(self.devices))
        if self.request.launcher == "slurm":
            # Jobs have machines of their own, which are not this one.
            self.folder.plan(self.index, self.max_saes, None, self.request.parallel or 1)
        else:
            one_run = len(self.devices) if self.request.launcher == "ddp" else 1
            self.folder.plan(self.index, self.max_saes, self._memory(workers), max(1, workers // one_run))
        return self

    @property
    def max_saes(self) -> int | None:
        """The most SAEs in a group."""
        return self.request.max_saes or (self.sweep.max_saes if self.sweep else None)

    def _expand(self, sweep: Sweep) -> None:
        points, notes = expand(sweep, self.request.overrides)
        self.total = len(points)
        chosen = select(points, self.request.pattern, self.request.limit)
        resolved = resolve(sweep, chosen)
        self.index.name, self.index.metric = sweep.name, sweep.metric
        self.notes = notes + resolved.notes + self.folder.merge(self.index, resolved)

    def _choose_among(self, index: Index) -> None:
        names = {name: key for key, entry in index.entries.items() for name in entry.names}
        self.total = len(names)
        if self.request.pattern is not None or self.request.limit is not None:
            from saelight.sweep.points import Point

            points = select([Point(name, {}, 0) for name in names], self.request.pattern, self.request.limit)
            index.wanted = list(dict.fromkeys(names[point.name] for point in points))

    def _memory(self, workers: int) -> int:
        """Bytes that a run may take on the smallest of the devices."""
        shares = [d.memory // (workers if d.name == "cpu" else 1) for d in self.devices]
        return int(_SHARE * min(shares))

    def to_run(self) -> list[Group]:
        """The groups that have something left to train."""
        return self.folder.unfinished(self.index)

    def entries(self, group: Group) -> list[Entry]:
        """A group's points."""
        return [self.index.entries[key] for key in group.members]

    def summary(self) -> str:
        """What the sweep comes to, in some lines."""
        distinct = len(self.index.wanted)
        points = sum(len(self.index.entries[key].names) for key in self.index.wanted)
        chosen = f" of {self.total}" if points != self.total else ""
        lines = [f"{self.index.name}: {points}{chosen} points" + (f", {distinct} distinct" if distinct != points else "")]
        lines[0] += f", {len(self.index.groups)} groups in {self.folder.path}/groups"
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def dry_run(self) -> str:
        """What would run where, and what it would take."""
        return f"{self.summary()}\n{forecast(self)}"

    def run(self, launcher_options: dict[str, Any]) -> int:
        """Train all that is left; the exit code. Interrupted: 130."""
        if self.index.missing:
            raise UserError(self.index.missing[0])
        begun = [g.id for g in self.index.groups.values() if self.folder.begun(g.id)]
        if begun and not self.request.resume:
            raise UserError(f"{self.folder.path} was begun ({len(begun)} of {len(self.index.groups)} groups): go on with "
                            "--resume, or give --out another folder")  # fmt: skip
        self.folder.commit(self.index)
        groups = self.to_run()
        print(self.summary(), flush=True)
        if finished := len(self.index.groups) - len(groups):
            print(f"{finished} groups are finished or not asked for, {len(groups)} to run", flush=True)
        launcher, wait = self._launcher(launcher_options), not launcher_options.get("no_wait")
        try:
            ok = run(self.folder, self.index, groups, launcher, lambda line: print(line, flush=True), wait)
        except Stopped:
            print(f"stopped; `saelight sweep run {self.request.file} --resume` goes on", flush=True)
            return 130
        if not wait:
            print(f"submitted: `saelight sweep status {self.folder.path}` tells how it goes, `saelight sweep run "
                  f"{self.request.file} --resume` waits for it and tries again what failed", flush=True)  # fmt: skip
            return 0
        print(f"results: {self.folder.path}/results.csv; a table: saelight sweep status {self.folder.path}", flush=True)
        return 0 if ok else 1

    def _launcher(self, options: dict[str, Any]):
        for_slurm = ("partition", "account", "time", "gpus", "cpus", "sbatch")
        if self.request.launcher == "slurm":
            from saelight.sweep.launch.slurm import SlurmLauncher

            return SlurmLauncher(self.folder, parallel=self.request.parallel, **{key: options.get(key) for key in for_slurm})
        for key in (*for_slurm, "no_wait"):
            if options.get(key) not in (None, False, []):
                raise UserError(f"--{key.replace('_', '-')} goes with --launcher slurm: add that, or drop it")
        from saelight.sweep.launch.local import LocalLauncher

        return LocalLauncher(self.folder, self.devices, self.request.parallel, ddp=self.request.launcher == "ddp")

