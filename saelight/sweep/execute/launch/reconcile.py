"""What became of Slurm jobs that no runner waits for: submitted with --no-wait, or left by a runner that was killed."""

import contextlib

from saelight.errors import UserError
from saelight.sweep.execute.launch import slurm_queue
from saelight.sweep.execute.launch.slurm_array import failure
from saelight.sweep.execute.runner import only_runner
from saelight.sweep.store.journal import Journal
from saelight.sweep.store.sweep_folder import SweepFolder


def settle(folder: SweepFolder) -> None:
    """Record how such jobs ended; nothing while a runner is at work, in another's folder, or when Slurm does not answer."""
    journal = Journal(folder.path)
    jobs = journal.jobs()
    if not jobs:
        return
    with contextlib.suppress(UserError, OSError), only_runner(folder):
        states = slurm_queue.states(jobs.values())
        for group, job in jobs.items():
            if folder.finished(group):
                journal.add(group, "finished")
            # Of a job that was completed, the results are surely on their way from the other machine.
            elif slurm_queue.has_ended(states[job]) and states[job] != "COMPLETED":
                journal.add(group, "failed", error=failure(folder, group, job, states[job]))
