"""The `trainer.logger` of a config with W&B added to it: what else it says stays. Light: no Lightning."""

import copy
from typing import Any

_OURS = "saelight.loggers.PerSAE"


def with_wandb(logger: Any) -> Any:
    """A value for `trainer.logger` that logs to W&B too, one run per SAE."""
    if logger in (None, True):
        return {"class_path": _OURS, "init_args": {"wandb": {}}}
    loggers = [_as_dict(one) for one in (logger if isinstance(logger, list) else [logger]) if one]
    ours = next((one for one in loggers if _is_ours(one)), None)
    if ours is None:
        loggers.append({"class_path": _OURS, "init_args": {"to": ["wandb"]}})
    elif ours["init_args"].get("wandb") is not None or "wandb" not in (ours["init_args"].get("to") or ()):
        # The agent has a server to talk to, and waits to hear from its run.
        settings = ours["init_args"].get("wandb") or {}
        ours["init_args"]["wandb"] = {key: value for key, value in settings.items() if key != "offline"}
    return loggers if len(loggers) > 1 else loggers[0]


def settings_of(logger: Any) -> dict[str, Any]:
    """The W&B settings that a config's logger has."""
    for one in logger if isinstance(logger, list) else [logger]:
        if one and one is not True and _is_ours(_as_dict(one)):
            return _as_dict(one)["init_args"].get("wandb") or {}
    return {}


def _as_dict(logger: dict[str, Any] | str) -> dict[str, Any]:
    full: dict[str, Any] = copy.deepcopy(logger) if isinstance(logger, dict) else {"class_path": logger}
    full["init_args"] = full.get("init_args") or {}
    return full


def _is_ours(logger: dict[str, Any]) -> bool:
    return str(logger["class_path"]).rpartition(".")[2] == "PerSAE"
