"""Runs a sweep's groups: hands them to a launcher as it frees, records what happens, keeps the results up to date."""

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType

from saelight.sweep.execute.launch import Launcher, Outcome
from saelight.sweep.execute.progress_line import Progress
from saelight.sweep.execute.work import Work
from saelight.sweep.store import result_files
from saelight.sweep.store.journal import Journal
from saelight.sweep.store.sweep_folder import Group, Index, SweepFolder

_POLL = 0.3
_REFRESH = 5.0
"""Seconds between two looks at the runs for SAEs that ended before their siblings."""
_ATTEMPTS = 2


class Stopped(Exception):
    """The runner was told to stop, and every run has written its checkpoint."""


def run(folder: SweepFolder, index: Index, work: Work, launcher: Launcher, progress: Progress, wait: bool = True) -> bool:
    """Run all that `work` gives to its end; whether all succeeded. A group that fails is tried once more.

    Args:
        wait: False returns when the launcher has all groups, for one whose groups need no runner.

    Raises:
        Stopped: on Ctrl-C, SIGTERM or SIGHUP, once every child has written its checkpoint; on a second one without that.
    """
    journal = Journal(folder.path)
    again: deque[Group] = deque()
    running: dict[str, Group] = {}
    attempts: dict[str, int] = {}
    failed, done = [], 0
    looked = time.monotonic()
    result_files.write(folder, index)
    with _stop_signals(launcher.hurry) as stopped:
        while work.left or again or running:
            while (work.left or again) and (free := launcher.free()) and not stopped():
                batch = [again.popleft() for _ in range(min(free, len(again)))]
                batch += work.take(free - len(batch))
                if not batch:
                    break
                for group, record in zip(batch, launcher.submit(batch), strict=True):
                    attempts[group.id] = attempts.get(group.id, 0) + 1
                    journal.add(group.id, "submitted", attempt=attempts[group.id], launcher=launcher.name, **record)
                    running[group.id] = group
                    progress.say(f"{group.id}: {len(group.members)} SAEs on {record['device']}")
            if not wait:
                return True
            if stopped():
                progress.say(
                    "stopping: every run ends its batch and writes its checkpoint (--resume goes on from there; "
                    "Ctrl-C again: at once, from the checkpoint before)"
                )
                launcher.cancel()
            for outcome in launcher.poll():
                group = running.pop(outcome.group)
                _record(journal, outcome, stopped())
                if outcome.ok:
                    done += 1
                    progress.say(f"{group.id}: finished ({done})")
                elif stopped():
                    progress.say(f"{group.id}: stopped")
                    continue
                elif outcome.again and attempts[group.id] < _ATTEMPTS:
                    progress.say(f"{group.id}: failed, once more: {outcome.error}")
                    again.append(group)
                    continue
                else:
                    failed.append(group.id)
                    progress.say(f"{group.id}: failed: {outcome.error}")
                result_files.write(folder, index)
                work.ended(group.id, outcome.error)
                looked = time.monotonic()
            if stopped() and not running:
                result_files.write(folder, index)
                raise Stopped
            if time.monotonic() - looked > _REFRESH:
                progress.update(result_files.write(folder, index))
                looked = time.monotonic()
            time.sleep(_POLL)
    return not failed


def _record(journal: Journal, outcome: Outcome, stopped: bool) -> None:
    if outcome.ok:
        journal.add(outcome.group, "finished")
    elif stopped:
        journal.add(outcome.group, "interrupted")
    else:
        journal.add(outcome.group, "failed", error=outcome.error)


@contextlib.contextmanager
def _stop_signals(hurry: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Ctrl-C, SIGTERM and a terminal that closes set a flag while this lasts; a second one calls `hurry`."""
    received: list[int] = []
    handlers = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            hurry()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup a terminal may close as it likes.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                handlers[number] = signal.signal(number, note)
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
