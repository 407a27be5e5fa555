"""`early_terminate` of a sweep file: Halving inside each group, or Optuna's Hyperband over a search."""

from typing import Any

from saelight.errors import UserError
from saelight.sweep.plan.checks import mapping, one_of, refuse_unknown
from saelight.sweep.plan.metric import key_of


def early_end(given: Any, method: str, metric: dict[str, str], where: str) -> dict[str, Any]:
    """What `early_terminate` asks for, as Halving's arguments or as Hyperband's."""
    if given is None:
        return {}
    kind = one_of(mapping(given, where).get("type"), ("hyperband", "halving"), f"{where}.type")
    if kind == "halving":
        refuse_unknown(given, {"type", "rungs", "keep"}, where)
        own = {key: given[key] for key in ("rungs", "keep") if key in given}
        judged = {"metric": key_of(metric), "goal": metric["goal"]}
        return {"halving": {"class_path": "Halving", "init_args": own | judged}}
    refuse_unknown(given, {"type", "min_iter", "max_iter", "eta", "s", "strict"}, where)
    least, eta = _whole(given, "min_iter", 1, where) or 1, _whole(given, "eta", 2, where) or 3
    most = _whole(given, "max_iter", least, where)
    if method != "bayes":
        # W&B prunes by it whatever the method.
        note = "all points of this " + method + " run to their end; {type: halving} would end poor ones"
        return {"notes": (f"early_terminate: hyperband is for method bayes (or W&B): {note}",)}
    return {"pruner": {"min_resource": least, "max_resource": most or "auto", "reduction_factor": eta}}


def _whole(given: dict[str, Any], key: str, least: int, where: str) -> int | None:
    value = given.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise UserError(f"{where}.{key} must be a whole number of at least {least}, got {value!r}")
    return value
