"""W&B runs: many in one process, each found again by its id when training goes on."""

import importlib
import inspect
import json
import os
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from saelight.errors import UserError, did_you_mean
from saelight.files import write_text
from saelight.loggers.sink import Sink, SinkRun

# The axis that Lightning's own W&B logger uses. W&B's step must only ever grow, which a resumed run's does not.
AXIS = "trainer/global_step"
_OURS = {"config", "dir", "id", "name", "reinit", "resume"}


class AgentRun(NamedTuple):
    """The run of a W&B sweep that `wandb agent` started this process for."""

    id: str
    sweep: str

    @classmethod
    def take(cls) -> "AgentRun | None":
        """Take it out of the environment, where wandb would find it and give its one id to every run of this process."""
        if not {"WANDB_SWEEP_ID", "WANDB_RUN_ID"} <= os.environ.keys():
            return None
        return cls(os.environ.pop("WANDB_RUN_ID"), os.environ.pop("WANDB_SWEEP_ID"))


class WandbSink(Sink):
    """Opens W&B runs of one project and group. There is none of the bank: its metrics are in every SAE's run.

    Under `wandb agent`, the first of them is the agent's own run, and the sweep's project is that of all; the others are
    grouped with it, outside of the sweep, whose points they are not.

    Args:
        settings: arguments of `wandb.init` for every run (project, entity, group, tags, …), and `offline: true`.

    Raises:
        UserError: wandb is not installed, or a setting is not an argument of `wandb.init` or not free to choose.
    """

    takes_shared = True

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        settings = settings or {}
        known = set(inspect.signature(_wandb().init).parameters) | {"offline"}
        for key in settings:
            if key in _OURS:
                raise UserError(f"wandb setting {key!r} is each SAE's own: remove it (project, entity and group are free)")
            if key not in known:
                raise UserError(f"unknown wandb setting {key!r}{did_you_mean(key, known - _OURS)}")
        self.settings = settings
        # Before wandb is first set up, which reads the environment.
        self._agent = AgentRun.take()
        self._agents: dict[str, str] = {}
        """Ids that derive from the agent's run, by SAE."""

    def open(self, folder: Path, name: str, config: dict[str, Any]) -> "WandbRun":
        """As of `Sink`.

        Raises:
            UserError: W&B refuses, or cannot be reached.
        """
        run_id = self._identify(folder / "logs" / "runs.json", name)
        return WandbRun(partial(self._start, folder, name, run_id, config))

    def _identify(self, book: Path, name: str) -> str:
        """The id of SAE `name`'s run: the agent's, or one found or kept in the JSON file `book`."""
        wanted = None
        if self._agent:
            nth = f"{self._agent.id}-k{len(self._agents)}" if self._agents else self._agent.id
            wanted = self._agents.setdefault(name, nth)
        return run_id(book, name, wanted)

    def _start(self, folder: Path, name: str, run_id: str, config: dict[str, Any]) -> Any:
        """Start the run `run_id`, or go on with it; its files are in `folder`/wandb."""
        wandb = _wandb()
        arguments = dict(self.settings)
        if arguments.pop("offline", False):
            arguments["mode"] = "offline"
        own = {}
        if self._agent:
            # A sweep's runs are where the sweep is; the agent names it in the environment.
            for key in ("project", "entity"):
                if f"WANDB_{key.upper()}" in os.environ:
                    arguments.pop(key, None)
            arguments.setdefault("group", self._agent.id)
            own = {"sweep_id": self._agent.sweep} if run_id == self._agent.id else {}
        arguments.setdefault("project", os.environ.get("WANDB_PROJECT", "saelight"))
        arguments.setdefault("group", folder.name)
        # Each run would capture the one standard output, and tell at length how it begins and ends.
        offline = arguments.get("mode", os.environ.get("WANDB_MODE")) == "offline"
        defaults = {"console": "off", "quiet": True, "silent": offline}
        try:
            arguments["settings"] = wandb.Settings(**defaults | arguments.get("settings", {}) | own)
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


class WandbRun(SinkRun):
    """A W&B run, begun at once and begun again by the first metrics after its end.

    W&B takes nothing back: the curve of a resumed run shows both lives.

    Args:
        start: starts the run or goes on with it.
    """

    def __init__(self, start: Callable[[], Any]) -> None:
        self._start = start
        self._run = start()

    @property
    def experiment(self) -> Any:
        """W&B's run; None between `finish` and the next `log`."""
        return self._run

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._run = self._run or self._start()
        self._run.log({**metrics, AXIS: step})

    def finish(self, exit_code: int) -> None:
        if self._run:
            self._run.finish(exit_code=exit_code)
            self._run = None


def run_id(book: Path, name: str, wanted: str | None = None) -> str:
    """The id of SAE `name`, read from the JSON file `book`, or made once and written there; `wanted` replaces it."""
    ids = json.loads(book.read_text()) if book.is_file() else {}
    if name not in ids or wanted:
        ids[name] = wanted or secrets.token_hex(6)
        write_text(book, json.dumps(ids, indent=1) + "\n", durable=False)
    return ids[name]


def _wandb() -> ModuleType:
    """wandb, an extra, imported only where it is used."""
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise UserError("logging to W&B needs wandb: pip install 'saelight[wandb]'") from error
