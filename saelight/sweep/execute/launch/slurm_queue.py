"""Slurm's commands: hand in an array of jobs, ask what they do, tell them something."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from saelight.errors import UserError

_ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
    "VANISHED",
}
"""What a job does not come back from by itself; one that is requeued is pending."""


def submit(script: Path, options: list[str]) -> str:
    """Hand in a script; the job's number. Raises `UserError` with sbatch's reason when it refuses."""
    # The script says the same; but a user's SBATCH_PARTITION and its like go before a script, and not before these.
    done = _call("sbatch", "--parsable", *options, str(script))
    if done.returncode != 0:
        lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in done.stderr.strip().splitlines()]
        raise UserError(
            f"sbatch refused {script} ({'; '.join(lines)}): change --partition, --account, --time, --gpus, "
            "--cpus or --sbatch"
        )
    # On a cluster of several: number;cluster
    return done.stdout.strip().partition(";")[0]


def states(jobs: Iterable[str]) -> dict[str, str]:
    """The state of each job (`12_3`) as Slurm calls it; VANISHED where neither queue nor accounting knows it.

    Raises:
        ConnectionError: when the queue does not answer; the jobs may be well all the same.
    """
    try:
        done = _call("squeue", "--noheader", "--me", "--states=all", "--array", "--format=%i|%T")
    except FileNotFoundError as error:
        raise ConnectionError(str(error)) from None
    if done.returncode != 0:
        raise ConnectionError(done.stderr.strip())
    known = _table(done.stdout)
    wanted = set(jobs)
    if forgotten := wanted - known.keys():
        known = _accounted(forgotten) | known
    return {job: known.get(job, "VANISHED") for job in wanted}


def has_ended(state: str) -> bool:
    """Whether a job in this state is over; not one that waits, runs, or goes back to the queue."""
    return state in _ENDED


def cancel(jobs: list[str], *options: str) -> None:
    """`scancel`: end jobs, or signal them with `--signal`."""
    if jobs:
        _call("scancel", "--quiet", *options, *jobs)


def _accounted(jobs: set[str]) -> dict[str, str]:
    listed = ",".join(sorted(jobs))
    # Many a Slurm keeps no accounts.
    try:
        done = _call("sacct", "--noheader", "--allocations", "--parsable2", "--format=JobID,State", f"--jobs={listed}")
    except FileNotFoundError:
        return {}
    return _table(done.stdout) if done.returncode == 0 else {}


def _table(text: str) -> dict[str, str]:
    # "CANCELLED by 1000"
    rows = (line.split("|") for line in text.splitlines() if "|" in line)
    return {job: state.split()[0] for job, state in rows}


def _call(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
