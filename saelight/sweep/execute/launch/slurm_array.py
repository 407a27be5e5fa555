"""Slurm: a job array over the groups, written as a script that a person can read and hand in again.

Each job has one task, started by srun: signals of Slurm's own (before the time limit, on preemption) reach tasks alone,
never the batch script. Several GPUs are several processes of that task, which Lightning starts.
"""

import argparse
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelight.errors import UserError
from saelight.files import write_text
from saelight.parsing.arguments import count, whole
from saelight.sweep.execute.launch import slurm_queue
from saelight.sweep.execute.launch.launcher import Launcher, Outcome
from saelight.sweep.execute.launch.logs import last_words, log_of
from saelight.sweep.store.journal import Journal

if TYPE_CHECKING:
    from saelight.sweep.execute.devices import Device
    from saelight.sweep.store.sweep_folder import Group, SweepFolder

_SCRIPT = """\
#!/bin/bash
# A job for each group of the sweep; its array index is the group's number. To hand it in again: sbatch THIS_FILE
{directives}

export OMP_NUM_THREADS={threads}
exec srun --ntasks=1 --cpus-per-task={cpus} \\
    {child} "$(printf group-%03d "$SLURM_ARRAY_TASK_ID")" \\
    {arguments}
"""
_LAG = 60.0
"""Seconds until another machine's files are surely seen here."""
_PATIENCE = 600.0
"""Seconds for a job to end its batch and write its checkpoint."""


class SlurmLauncher(Launcher):
    """Groups as jobs of an array, on machines of their own.

    Args:
        partition, account, time: As sbatch takes them.
        gpus: Of a job, 1 by default; 0 for none.
        cpus: Cores of a job.
        sbatch: Any other options, as `KEY=VALUE`.
    """

    name = "slurm"
    summary = "a job array"
    detaches = True

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        slurm = parser.add_argument_group("Slurm")
        slurm.add_argument("--partition", help="the partition")
        slurm.add_argument("--account", help="the account")
        slurm.add_argument("--time", help="the time limit of a job, as sbatch takes it (1-12:00:00, or minutes)")
        slurm.add_argument("--gpus", type=whole, metavar="N", help="GPUs of a job (default 1; 0 for none)")
        slurm.add_argument("--cpus", type=count, metavar="N", help="cores of a job")
        slurm.add_argument("--sbatch", action="append", default=[], metavar="KEY=VALUE", help="any other option of sbatch")

    def __init__(
        self,
        folder: "SweepFolder",
        devices: "list[Device]",
        parallel: int | None,
        *,
        partition: str | None = None,
        account: str | None = None,
        time: str | None = None,
        gpus: int | None = None,
        cpus: int | None = None,
        sbatch: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, devices, parallel)
        self.gpus, self.cpus = 1 if gpus is None else gpus, cpus
        wanted = {
            "partition": partition,
            "account": account,
            "time": time,
            "cpus-per-task": cpus,
            "gres": f"gpu:{self.gpus}" if self.gpus else None,
        }
        self._options = [f"--{key}={value}" for key, value in wanted.items() if value is not None]
        # Of an option given twice the last counts, as sbatch has it.
        self._more = list({_key(option): option for option in map(_checked, sbatch)}.values())
        self._jobs: dict[str, str] = {}
        """By group: the job that is to train it."""
        self._ended_at: dict[str, float] = {}
        self._began = self._looked = 0.0
        self._hurried = False

    @property
    def kinds(self) -> tuple[str, ...]:
        return ("gpu",) if self.gpus else ("cpu",)

    @property
    def workers(self) -> list[str]:
        # A cluster takes any number of jobs, and may run one at a time.
        return [self.name] * (self.parallel or 1)

    def check(self) -> None:
        if shutil.which("sbatch") is None:
            raise UserError(
                "--launcher slurm: there is no sbatch on PATH: run this on a login machine of a Slurm cluster, "
                "or use --launcher local"
            )

    def free(self) -> int:
        return sys.maxsize

    def submit(self, groups: "list[Group]") -> list[dict[str, Any]]:
        """Jobs for the groups that have none in the queue, of this launcher's or of one before it."""
        self._jobs |= self._queued(groups)
        if fresh := [group.id for group in groups if group.id not in self._jobs]:
            self._jobs |= self._submit(fresh)
        self._began = self._looked = time.monotonic()
        threads = {"threads": self._threads(self.cpus)} if self.cpus else {}
        return [{"device": f"slurm {self._jobs[group.id]}", "job": self._jobs[group.id], **threads} for group in groups]

    def _queued(self, groups: "list[Group]") -> dict[str, str]:
        recorded = Journal(self.folder.path).jobs(self.name)
        jobs = {group.id: recorded[group.id] for group in groups if group.id in recorded}
        if not jobs:
            return {}
        try:
            states = slurm_queue.states(jobs.values())
        except ConnectionError as error:
            raise UserError(
                f"squeue does not say what became of the jobs that were submitted ({error}): try again when Slurm answers"
            ) from None
        return {group: job for group, job in jobs.items() if not slurm_queue.has_ended(states[job])}

    def _submit(self, groups: list[str]) -> dict[str, str]:
        numbers = {_number(group): group for group in groups}
        options = self._directives(list(numbers))
        array = slurm_queue.submit(self._write(options), options)
        return {group: f"{array}_{number}" for number, group in numbers.items()}

    def _directives(self, numbers: list[int]) -> list[str]:
        throttle = f"%{self.parallel}" if self.parallel else ""
        logs = str(log_of(self.folder, "").parent.resolve()).replace("%", "%%")
        ours = [
            f"--job-name={self.folder.path.resolve().name}",
            f"--array={_ranges(numbers)}{throttle}",
            f"--chdir={Path.cwd()}",
            f"--output={logs}/group-%3a.txt",
            "--open-mode=append",
            "--nodes=1",
            "--ntasks=1",
            "--requeue",
            # Two minutes to end the batch, to save, and to ask for another turn.
            "--signal=USR1@120",
            *self._options,
        ]
        given = {_key(option) for option in self._more}
        return [*(option for option in ours if _key(option) not in given), *self._more]

    def preview(self, groups: "list[Group]") -> str:
        numbers = [_number(group.id) for group in groups]
        return f"the script for sbatch:\n\n{self._script(self._directives(numbers))}" if numbers else ""

    def _write(self, options: list[str]) -> Path:
        """The script, in the sweep's folder."""
        folder = self.folder.path.resolve() / "slurm"
        folder.mkdir(exist_ok=True)
        log_of(self.folder, "").parent.mkdir(exist_ok=True)
        script = folder / f"array-{1 + sum(1 for _ in folder.glob('array-*.sh'))}.sh"
        write_text(script, self._script(options))
        return script

    def _script(self, options: list[str]) -> str:
        child = [sys.executable, "-m", "saelight.sweep.execute.child", str(self.folder.path.resolve())]
        # srun forgets how many cores the job has.
        cpus = '"${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}"'
        return _SCRIPT.format(
            directives="\n".join(f"#SBATCH {shlex.quote(option)}" for option in options),
            cpus=cpus,
            threads=self._threads(self.cpus) if self.cpus else cpus,
            child=shlex.join(child),
            arguments=shlex.join(self._arguments()),
        )

    def _threads(self, cpus: int) -> int:
        return max(1, cpus // max(1, self.gpus))

    def _arguments(self) -> list[str]:
        if self.gpus == 0:
            return ["--trainer.accelerator=cpu", "--trainer.devices=1"]
        ddp = ["--trainer.strategy=ddp"] if self.gpus > 1 else []
        return ["--trainer.accelerator=gpu", f"--trainer.devices={self.gpus}", *ddp]

    def poll(self) -> list[Outcome]:
        # A group's own results are the truth, whatever Slurm says of its job.
        outcomes = [Outcome(group, True) for group in self._jobs if self.folder.finished(group)]
        waiting = {group: job for group, job in self._jobs.items() if not self.folder.finished(group)}
        now = time.monotonic()
        if waiting and now - self._looked > self._pause(now):
            self._looked = now
            try:
                states = slurm_queue.states(waiting.values())
            except ConnectionError:
                # A controller that restarts knows its jobs again afterwards.
                states = {}
            for group, job in waiting.items():
                state = states.get(job, "UNKNOWN")
                if slurm_queue.has_ended(state) and not self._results_may_come(group, state, now):
                    # What someone cancelled is not begun anew.
                    error = _failure(self.folder, group, job, state)
                    outcomes.append(Outcome(group, False, error, again=state != "CANCELLED"))
        for outcome in outcomes:
            del self._jobs[outcome.group]
            self._ended_at.pop(outcome.group, None)
        return outcomes

    def _pause(self, now: float) -> float:
        """Every second at first; a controller shared by many is not asked more often than need be."""
        return min(15.0, 1 + (now - self._began) / 50)

    def _results_may_come(self, group: str, state: str, now: float) -> bool:
        return state == "COMPLETED" and now - self._ended_at.setdefault(group, now) < _LAG

    def cancel(self) -> None:
        """Take back what waits, and let what runs save: not by `scancel` alone, whose patience is KillWait (30 s)."""
        end = time.monotonic() + _PATIENCE
        signalled: set[str] = set()
        while (left := self._underway()) and time.monotonic() < end:
            slurm_queue.cancel([job for job, state in left.items() if state == "PENDING"])
            fresh = [job for job, state in left.items() if state == "RUNNING" and job not in signalled]
            slurm_queue.cancel(fresh, "--signal=TERM")
            signalled.update(fresh)
            if self._hurried:
                break
            time.sleep(0.5)
        slurm_queue.cancel(list(left))
        self._looked = 0.0

    def hurry(self) -> None:
        self._hurried = True

    def _underway(self) -> dict[str, str]:
        try:
            states = slurm_queue.states(self._jobs.values())
        except ConnectionError:
            return dict.fromkeys(self._jobs.values(), "UNKNOWN")
        return {job: state for job, state in states.items() if not slurm_queue.has_ended(state)}

    @classmethod
    def ended(cls, folder: "SweepFolder", jobs: dict[str, str]) -> list[Outcome]:
        states = slurm_queue.states(jobs.values())
        # Of a job that was completed, the results are surely on their way from the other machine.
        failed = [group for group, job in jobs.items() if slurm_queue.has_ended(states[job]) and states[job] != "COMPLETED"]
        return [Outcome(group, False, _failure(folder, group, jobs[group], states[jobs[group]])) for group in failed]


def _failure(folder: "SweepFolder", group: str, job: str, state: str) -> str:
    """Why a job came to its end in this state: its own word of the error, or its last lines."""
    return last_words(log_of(folder, group), f"Slurm job {job} {state.lower()}")


def _checked(text: str) -> str:
    """An option of sbatch's, as `KEY=VALUE` or KEY alone; not the array, which is the groups'."""
    option = f"--{text.lstrip('-')}"
    if not _key(option)[2:] or "\n" in text:
        raise UserError(f"--sbatch {text!r}: write --sbatch KEY=VALUE, as --sbatch mem=64G")
    if _key(option) == "--array":
        raise UserError(
            f"--sbatch {text}: the array is the sweep's groups: choose among them by --filter, throttle by --max-parallel"
        )
    return option


def _key(option: str) -> str:
    """`--mem` of `--mem=64G`."""
    return option.partition("=")[0]


def _number(group: str) -> int:
    """7 of `group-007`."""
    return int(group.rpartition("-")[2])


def _ranges(numbers: list[int]) -> str:
    """`0-3,7` of sorted numbers."""
    runs = [list(run) for _, run in groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])]
    return ",".join(str(run[0][1]) if len(run) == 1 else f"{run[0][1]}-{run[-1][1]}" for run in runs)
