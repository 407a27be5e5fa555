"""What became of jobs that no runner waits for: submitted with --no-wait, or left by a runner that was killed."""

import contextlib

from saelight.errors import UserError
from saelight.sweep.execute.launch import LAUNCHERS
from saelight.sweep.store.journal import Journal
from saelight.sweep.store.runner_lock import only_runner
from saelight.sweep.store.sweep_folder import SweepFolder


def reconcile_jobs(folder: SweepFolder) -> None:
    """Record how such jobs ended; nothing while a runner is at work, in another's folder, or when the queue does not answer.

    Only of launchers that saelight has: a folder that someone else made does not say what code is to run here.
    """
    journal = Journal(folder.path)
    if not journal.jobs():
        return
    with contextlib.suppress(UserError, OSError), only_runner(folder):
        for name, launcher in LAUNCHERS.items():
            jobs = journal.jobs(name)
            for group in filter(folder.finished, jobs):
                journal.add(group, "finished")
            if unfinished := {group: job for group, job in jobs.items() if not folder.finished(group)}:
                for outcome in launcher.ended(folder, unfinished):
                    journal.add(outcome.group, "failed", error=outcome.error)
