"""The contract of every launcher: its options, its capacity, and submit, poll, cancel."""

import argparse
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from saelight.sweep.execute.devices import Device
    from saelight.sweep.store.sweep_folder import Group, SweepFolder


class Outcome(NamedTuple):
    """How a submitted group came to its end."""

    group: str
    ok: bool
    error: str | None = None
    """The last lines of what failed."""
    again: bool = True
    """Whether to try once more what failed; not what someone ended on purpose."""


class Launcher(ABC):
    """Runs the groups of a sweep somewhere.

    A group's training is `python -m saelight.sweep.execute.child FOLDER GROUP [arguments of fit]`, which goes on from the
    group's checkpoint where there is one. SIGTERM makes it end its batch and save. Its output belongs into `logs.log_of`.

    A subclass is built before every plan, a dry run's too: it starts and asks nothing before `check` is called. The values
    of its own options are keyword arguments of its `__init__`.
    """

    name: ClassVar[str]
    """As `--launcher` and the sweep's journal call it."""
    summary: ClassVar[str]
    """Where it runs what, in some words, for the help of `--launcher`."""
    detaches: ClassVar[bool] = False
    """Whether what is submitted needs no runner, so that `--no-wait` may return at once."""

    def __init__(self, folder: "SweepFolder", devices: "list[Device]", parallel: int | None) -> None:
        """
        Args:
            folder: Of the sweep.
            devices: Of this machine, those that `--devices` names. There is at least one.
            parallel: `--max-parallel`: most groups at once; None for as many as there is room for.
        """
        self.folder, self.devices, self.parallel = folder, devices, parallel

    @staticmethod  # noqa: B027, most have none
    def add_options(parser: argparse.ArgumentParser) -> None:
        """Add the launcher's own options, none of them required; each one's `dest` is a keyword argument of `__init__`.

        Another launcher may have options of the same names. A name that `sweep run` has itself stays the command's.
        """

    @property
    @abstractmethod
    def workers(self) -> list[str]:
        """Names of what surely trains at the same time, a group each: a plan fills all, a forecast counts on them."""

    @property
    def memory_limit(self) -> int | None:
        """Bytes that a group may take above what every process takes; None where that is not known."""
        return None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of device that train, `cpu` and `gpu`, whose memory a group is planned for."""
        return tuple(sorted({"cpu" if device.name == "cpu" else "gpu" for device in self.devices}))

    def check(self) -> None:  # noqa: B027, most can
        """Raise `UserError` where groups cannot be started from here."""

    @abstractmethod
    def free(self) -> int:
        """How many more groups it takes now."""

    @abstractmethod
    def submit(self, groups: "list[Group]") -> list[dict[str, Any]]:
        """Start groups, no more than are free, or queue them.

        Returns:
            For each group what the journal records: `device`, and such as `threads`, `pid`, `job`. What has a `job` is in
            a queue: it counts as begun until it has ended, and `ended` is asked about it when no runner waits.
        """

    @abstractmethod
    def poll(self) -> list[Outcome]:
        """What has ended since the last call."""

    @abstractmethod
    def cancel(self) -> None:
        """Tell all that runs to stop, and wait until it has: each group writes its checkpoint first."""

    def hurry(self) -> None:  # noqa: B027, some have no way to
        """Ask what `cancel` waits for to stop at once, its checkpoint or not; called while that waits, from a signal's
        handler."""

    def preview(self, groups: "list[Group]") -> str:
        """What `submit` would hand in, for a dry run to show; empty where it starts processes by itself."""
        return ""

    @classmethod
    def ended(cls, folder: "SweepFolder", jobs: dict[str, str]) -> list[Outcome]:
        """Which of these jobs, by group, are over, and how: they were submitted, and no runner waits for them.

        Raises:
            OSError: when the queue does not answer.
        """
        return []
