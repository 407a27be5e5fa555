"""What a sweep judges its points by, `metric: {name: val/fvu, goal: minimize}`, checked when the file is read."""

from typing import TYPE_CHECKING, Any

from saelight.errors import UserError, did_you_mean
from saelight.run.metric_names import EVALUATED, FINAL, ON_MODEL, TRUTH
from saelight.sweep.plan.checks import mapping, one_of, refuse_unknown

if TYPE_CHECKING:
    from saelight.data.source import Opened

_GOALS = ("minimize", "maximize")
_STAGE = "val/"


def read_metric(given: Any, while_training: bool, where: str) -> dict[str, str]:
    """Name and goal of the metric. Raises `UserError`.

    Args:
        given: As the sweep file says it, or None.
        while_training: Whether something judges by it before training is over.
    """
    metric = {"name": f"{_STAGE}fvu", "goal": "minimize"} | mapping(given or {}, where)
    refuse_unknown(metric, ("name", "goal"), where)
    one_of(metric["goal"], _GOALS, f"{where}.goal")
    _check_name(metric["name"], while_training, f"{where}.name")
    return metric


def key_of(metric: dict[str, str]) -> str:
    """The metric as an SAE's metrics have it: `fvu` of `val/fvu`."""
    return metric["name"].removeprefix(_STAGE)


def check_measured(metric: dict[str, str], trainer: dict[str, Any], opened: "Opened", where: str) -> None:
    """Raise `UserError` for a metric that a run of this trainer and these data would never have.

    Args:
        trainer: The trainer's arguments as they come out.
    """
    name = metric["name"]
    if trainer["limit_val_batches"] == 0:
        raise UserError(f"{where}: {name} comes from validations, and trainer.limit_val_batches is 0: validate on something")
    if opened.val is None:
        raise UserError(f"{where}: {name} comes from validations, and the data leave no rows for them: give data some")
    if key_of(metric) == TRUTH and opened.features is None:
        raise UserError(f"{where}: {name} compares with true features, and only synthetic data know theirs: take val/fvu")
    if key_of(metric) in ON_MODEL and not any(map(_evaluates, trainer["callbacks"] or ())):
        raise UserError(
            f"{where}: {name} takes the language model: add EvaluateOnModel to trainer.callbacks, or take val/fvu"
        )


def _evaluates(callback: Any) -> bool:
    """Whether a callback of a config measures on the language model."""
    path = callback.get("class_path") if isinstance(callback, dict) else callback
    return str(path).rpartition(".")[2] == "EvaluateOnModel"


def _check_name(name: Any, while_training: bool, where: str) -> None:
    known = [f"{_STAGE}{key}" for key in (*EVALUATED, TRUTH, *ON_MODEL, *(() if while_training else FINAL))]
    if name in known:
        return
    if while_training and str(name).removeprefix(_STAGE) in FINAL:
        why = f"{name} is measured once, when training is over, and this sweep judges before"
    else:
        bare = f"{_STAGE}{name}"
        near = f"; did you mean {bare!r}?" if bare in known else did_you_mean(str(name), known)
        why = f"there is no metric {name!r}{near}"
    raise UserError(f"{where}: {why}; known: {', '.join(known)}")
