"""W&B runs: many in one process, each found again by its id when training goes on."""

import importlib
import inspect
import json
import os
import secrets
from pathlib import Path
from types import ModuleType
from typing import Any

from saelight.errors import UserError
from saelight.suggest import did_you_mean

# The axis that Lightning's own W&B logger uses. W&B's step must only ever grow, which a resumed run's does not.
AXIS = "trainer/global_step"
_OURS = {"config", "dir", "id", "name", "reinit", "resume"}


class WandbRuns:
    """Opens W&B runs of one project and group.

    Args:
        settings: arguments of `wandb.init` for every run (project, entity, group, tags, …), and `offline: true`.

    Raises:
        UserError: wandb is not installed, or a setting is not an argument of `wandb.init` or not free to choose.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        known = set(inspect.signature(_wandb().init).parameters) | {"offline"}
        for key in settings:
            if key in _OURS:
                raise UserError(f"wandb setting {key!r} is each SAE's own: remove it (project, entity and group are free)")
            if key not in known:
                raise UserError(f"unknown wandb setting {key!r}{did_you_mean(key, known - _OURS)}")
        self.settings = settings

    def open(self, folder: Path, name: str, run_id: str, config: dict[str, Any]) -> Any:
        """Start the run `run_id`, or go on with it; its files are in `folder`/wandb.

        Raises:
            UserError: W&B refuses, or cannot be reached.
        """
        wandb = _wandb()
        arguments = dict(self.settings)
        if arguments.pop("offline", False):
            arguments["mode"] = "offline"
        arguments.setdefault("project", os.environ.get("WANDB_PROJECT", "saelight"))
        arguments.setdefault("group", folder.name)
        # Each run would capture the one standard output, and tell at length how it begins and ends.
        offline = arguments.get("mode", os.environ.get("WANDB_MODE")) == "offline"
        defaults = {"console": "off", "quiet": True, "silent": offline}
        try:
            arguments["settings"] = wandb.Settings(**defaults | arguments.get("settings", {}))
            run = wandb.init(
                **arguments, dir=folder, id=run_id, name=name, config=config, reinit="create_new", resume="allow"
            )
        except (wandb.errors.Error, OSError, ValueError) as error:  # wandb's settings raise ValueErrors
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"W&B did not start run {name!r}: {reason} (see `wandb login`; or set wandb: {{offline: true}}, and "
                "`wandb sync` later)"
            ) from error
        run.define_metric(AXIS)
        run.define_metric("*", step_metric=AXIS, step_sync=True)
        return run


def run_id(book: Path, name: str) -> str:
    """The id of SAE `name`, read from the JSON file `book`, or made once and written there."""
    ids = json.loads(book.read_text()) if book.is_file() else {}
    if name not in ids:
        ids[name] = secrets.token_hex(6)
        beside = book.with_name(book.name + ".tmp")
        beside.write_text(json.dumps(ids, indent=1) + "\n")
        os.replace(beside, book)
    return ids[name]


def _wandb() -> ModuleType:
    """wandb, an extra, imported only where it is used."""
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise UserError("logging to W&B needs wandb: pip install 'saelight[wandb]'") from error
