"""From a sweep file, or its folder, to groups that are planned and run: what the commands have in common."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.sweep.execute import devices as dev
from saelight.sweep.execute.forecast import forecast
from saelight.sweep.execute.progress_line import Progress
from saelight.sweep.execute.runner import Stopped, only_runner, run
from saelight.sweep.execute.work import Listed, Work
from saelight.sweep.plan.distributions import RandomChooser
from saelight.sweep.plan.points import Point, draw, expand, select
from saelight.sweep.plan.resolve import Entry, resolve
from saelight.sweep.plan.spec import Sweep, read
from saelight.sweep.store.sweep_folder import Group, Index, SweepFolder

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
    journal: str | None = None


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
        if not self._to_be_grouped():
            return self
        if self.request.launcher == "slurm":
            # Jobs have machines of their own, which are not this one.
            self.folder.plan(self.index, self.max_saes, None, self.request.parallel or 1)
        else:
            one_run = len(self.devices) if self.request.launcher == "ddp" else 1
            self.folder.plan(self.index, self.max_saes, self._memory(self.workers), max(1, self.workers // one_run))
        return self

    def _to_be_grouped(self) -> bool:
        """A search groups its trials as it asks them, and groups that were expanded stay as they are."""
        if self.sweep is not None:
            return self.sweep.method != "bayes"
        grouped = {member for group in self.index.groups.values() for member in group.members}
        return bool(self._chooses or self.request.max_saes or set(self.index.wanted) - grouped)

    @property
    def _chooses(self) -> bool:
        return self.request.pattern is not None or self.request.limit is not None

    @property
    def workers(self) -> int:
        """Devices that train at the same time."""
        return min(self.request.parallel or len(self.devices), len(self.devices))

    @property
    def max_saes(self) -> int | None:
        """The most SAEs in a group."""
        return self.request.max_saes or (self.sweep.max_saes if self.sweep else None)

    def _expand(self, sweep: Sweep) -> None:
        if sweep.method == "bayes":
            return self._try_out(sweep)
        points, notes = expand(sweep, self.request.overrides)
        self.total = len(points)
        chosen = select(points, self.request.pattern, self.request.limit)
        resolved = resolve(sweep, chosen)
        self.index.name, self.index.metric = sweep.name, sweep.metric
        self.notes = [*sweep.notes, *notes, *resolved.notes, *self.folder.merge(self.index, resolved)]

    def _try_out(self, sweep: Sweep) -> None:
        """Check a search by one random point: what its trials are, only the study knows."""
        if self._chooses:
            raise UserError("--filter and --limit choose among points; a search makes its own: lower run_cap")
        if sweep.run_cap is None:
            raise UserError(f"{sweep.file}: method bayes has no end of its own: add `run_cap: 40`, the number of trials")
        draft = draw(sweep.root, RandomChooser([sweep.seed]))
        resolved = resolve(sweep, [Point("trial", draft.settings | self.request.overrides, 0)])
        self.index.name, self.index.metric = sweep.name, sweep.metric
        self.index.missing = resolved.missing
        self.notes = resolved.notes

    def _choose_among(self, index: Index) -> None:
        if index.trials:
            raise UserError(f"{self.folder.path} is a search's folder: give its sweep file, with --out {self.folder.path}")
        names = {name: key for key in index.asked for name in index.entries[key].names}
        self.total, index.wanted = len(names), index.asked
        if self._chooses:
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
        if self.sweep is not None and self.sweep.method == "bayes":
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
        return f"{self.summary()}\n{forecast(self)}"

    def run(self, launcher_options: dict[str, Any]) -> int:
        """Train all that is left; the exit code. Interrupted: 130."""
        if self.index.missing:
            raise UserError(self.index.missing[0])
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
        launcher, work = self._launcher(launcher_options), self._work(groups)
        wait = not launcher_options.get("no_wait")
        try:
            ok = run(self.folder, self.index, work, launcher, Progress(), wait)
        except Stopped:
            print("stopped; the same command with --resume goes on", flush=True)
            return 130
        if not wait:
            print(
                f"submitted: `saelight sweep status {self.folder.path}` tells how it goes; the same command with "
                "--resume in place of --no-wait waits for it, and tries again what failed",
                flush=True,
            )
            return 0
        for line in work.summary():
            print(line, flush=True)
        print(f"results: {self.folder.path}/results.csv; a table: saelight sweep status {self.folder.path}", flush=True)
        return 0 if ok else 1

    def _work(self, groups: list[Group]) -> Work:
        if self.sweep is None or self.sweep.method != "bayes":
            return Listed(groups)
        from saelight.sweep.execute.search import Search

        # A cluster takes any number of groups.
        at_once = self.request.parallel or (1 if self.request.launcher == "slurm" else self.workers)
        return Search(
            self.sweep,
            self.folder,
            self.index,
            self.request.overrides,
            self.request.journal,
            self.max_saes,
            self._memory(self.workers),
            at_once,
        )

    def _launcher(self, options: dict[str, Any]):
        for_slurm = ("partition", "account", "time", "gpus", "cpus", "sbatch")
        if self.request.launcher == "slurm":
            from saelight.sweep.execute.launch.slurm_array import SlurmLauncher

            return SlurmLauncher(self.folder, parallel=self.request.parallel, **{key: options.get(key) for key in for_slurm})
        for key in (*for_slurm, "no_wait"):
            if options.get(key) not in (None, False, []):
                raise UserError(f"--{key.replace('_', '-')} goes with --launcher slurm: add that, or drop it")
        from saelight.sweep.execute.launch.local import LocalLauncher

        return LocalLauncher(self.folder, self.devices, self.request.parallel, ddp=self.request.launcher == "ddp")
