"""The settings of saelight's callbacks, with their checks, and whether a callback can affect weights. Light: neither
torch nor Lightning, so that a sweep can check and compare runs without building them.

Each callback class takes its `__init__` from its declaration here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from saelight.errors import UserError
from saelight.ranges import Duration, Range, check_fields, short
from saelight.schedules import Time

Metric = Literal["fvu", "l0", "l1", "dead", "dense"]
"""Validation metrics of which less is better."""
Trouble = Literal["alive", "dead", "l0", "target", "fvu", "spike"]


class Settings:
    """What the declarations have in common."""

    affects_weights: ClassVar[bool] = False
    """Whether the callback can change what is trained, or when it ends."""

    def __post_init__(self) -> None:
        """Raise `UserError` for a setting out of its range. A callback's own state begins here too."""
        declared = next(cls for cls in type(self).__mro__ if cls in DECLARED.values())
        check_fields(self, f"{declared.__name__.removesuffix('Settings')}: ")


@dataclass(eq=False)
class StopEarlySettings(Settings):
    """Settings of `StopEarly`."""

    affects_weights = True

    patience: Annotated[int, Range(least=1, most=1_000_000)] = 5
    """Validations without progress, in a row, that end an SAE."""
    metrics: Sequence[Metric] = ("fvu", "l0")
    """Validation metrics to make progress in, any of fvu, l0, l1, dead, dense."""
    min_delta: Annotated[float, Range(least=0, below=1)] = 0.01
    """The least progress that counts, as a share of the metric's best value."""
    after: Annotated[Time, Duration(whole=False)] = 0.0
    """Validations before this time do not count."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.metrics:
            raise UserError(f"StopEarly: metrics must be some of {', '.join(get_args(Metric))}, and there is none")
        _check_some_of("StopEarly: metrics", self.metrics, Metric)


@dataclass(eq=False)
class HalvingSettings(Settings):
    """Settings of `Halving`."""

    affects_weights = True

    rungs: Annotated[Sequence[Time], Duration(zero=False)] = (0.25, 0.5)
    """When to end SAEs."""
    keep: Annotated[float, Range(above=0, below=1)] = 0.5
    """The share of the SAEs in training that goes on from a rung, rounded up."""
    metric: str = "fvu"
    """The validation metric to rank by, such as fvu, l0 or cosine."""
    goal: Literal["minimize", "maximize"] = "minimize"
    """Whether less of it is better, or more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rungs:
            raise UserError("Halving: rungs is empty: name at least one time, such as 0.25")
        self.metric = self.metric.removeprefix("val/")


@dataclass(eq=False)
class PruneTrialsSettings(Settings):
    """Settings of `PruneTrials`."""

    affects_weights = True

    journal: str
    """The study's journal file."""
    study: str
    """The study's name in it."""
    trials: dict[str, int]
    """By SAE: its trial's number."""
    pruner: dict[str, Any]
    """Settings of Optuna's HyperbandPruner: min_resource, max_resource, reduction_factor."""
    metric: str = "fvu"
    """The validation metric to report."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.metric = self.metric.removeprefix("val/")


@dataclass(eq=False)
class SaveCheckpointSettings(Settings):
    """Settings of `SaveCheckpoint`."""

    minutes: Annotated[float, Range(least=0, most=1e6)] = 10.0
    """Time between two checkpoints."""


@dataclass(eq=False)
class WatchHealthSettings(Settings):
    """Settings of `WatchHealth`."""

    troubles: Sequence[Trouble] = get_args(Trouble)
    """What to warn of, any of alive, dead, l0, target, fvu, spike."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_some_of("WatchHealth: troubles", self.troubles, Trouble)


@dataclass(eq=False)
class WriteProgressSettings(Settings):
    """Settings of `WriteProgress`."""

    every: Annotated[float, Range(least=0, most=1e6)] = 1.0
    """The least time between two writings, in seconds."""


@dataclass(eq=False, init=False)
class NoSettings(Settings):
    """Of callbacks that only look or write, and have nothing to set."""


def _check_some_of(name: str, given: Sequence[Any], known: Any) -> None:
    if not isinstance(given, list | tuple) or any(one not in get_args(known) for one in given):
        raise UserError(f"{name} must be some of {', '.join(get_args(known))}, got {short(given)}")


DECLARED: dict[str, type[Settings]] = {
    "ExportSAEs": NoSettings,
    "Halving": HalvingSettings,
    "PruneTrials": PruneTrialsSettings,
    "SaveCheckpoint": SaveCheckpointSettings,
    "StopEarly": StopEarlySettings,
    "TokenProgress": NoSettings,
    "WatchHealth": WatchHealthSettings,
    "WriteDelphiCache": NoSettings,
    "WriteProgress": WriteProgressSettings,
    "WriteTopLatents": NoSettings,
}
"""saelight's callbacks by the name of their class."""

OBSERVING: frozenset[str] = frozenset(
    {
        "DeviceStatsMonitor",
        "LearningRateMonitor",
        "ModelCheckpoint",
        "ModelSummary",
        "OnExceptionCheckpoint",
        "ProgressBar",
        "RichModelSummary",
        "RichProgressBar",
        "TQDMProgressBar",
        "ThroughputMonitor",
    }
)
"""Lightning's callbacks that only look or write, by the name of their class: no weight depends on them."""
