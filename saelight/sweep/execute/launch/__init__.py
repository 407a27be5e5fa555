"""Where groups run, behind one protocol: submit, poll, cancel."""

from typing import NamedTuple, Protocol

from saelight.sweep.store.sweep_folder import Group


class Outcome(NamedTuple):
    """How a submitted group came to its end."""

    group: str
    ok: bool
    error: str | None = None
    """The last lines of what failed."""
    again: bool = True
    """Whether to try once more what failed; not what someone ended on purpose."""


class Launcher(Protocol):
    """Runs groups somewhere."""

    def free(self) -> int:
        """How many more groups it takes now."""

    def submit(self, groups: list[Group]) -> list[dict]:
        """Start groups, no more than are free, or queue them; returns what to record of each: device, threads, job."""

    def poll(self) -> list[Outcome]:
        """What has ended since the last call."""

    def cancel(self) -> None:
        """Tell all that runs to stop, and wait until it has: each writes its checkpoint first."""
