"""One run per SAE, so that the curves of a bank overlay under one tag."""

import json
import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from saelight.errors import UserError
from saelight.loggers.sae_run import Run
from saelight.loggers.sink import Sink
from saelight.loggers.sinks import sink

BANK = "bank"  # the run of what belongs to no single SAE


class PerSAE(Logger):
    """Fans metrics named `<sae>/<metric>` out to one run per SAE, under the tag `<metric>`.

    `topk-32/train/l0` is the tag `train/l0` of the run `topk-32`, in `<save_dir>/logs/topk-32/`. A metric of no SAE
    (`tokens`) goes to the run `bank`, and in W&B, which has runs of SAEs only, into each of them. Lightning's `epoch` is
    dropped.

    The SAEs are those of `set_saes`, or of the hyper-parameters that Lightning logs; as long as none are known, the
    first component of any name with a slash is taken for one.
    """

    def __init__(
        self,
        save_dir: str | os.PathLike | None = None,
        to: tuple[str | Sink, ...] | list[str | Sink] = ("csv", "tensorboard"),
        wandb: dict[str, Any] | None = None,
    ) -> None:
        """
        Args:
            save_dir: The run's folder. saelight's Trainer sets it; give it to any other Trainer.
            to: Any of csv, tensorboard, wandb, and sinks of your own, as objects or class paths.
            wandb: Arguments of wandb.init (project, entity, group, tags, ...) and `offline: true`. Giving them adds
                wandb to `to`. `group` is the run folder's name unless given.

        Raises:
            UserError: an unknown target or W&B setting; wandb is wanted and not installed.
        """
        super().__init__()
        targets = [to] if isinstance(to, str | Sink) else list(to)
        settings = {} if wandb is None else {"wandb": {"settings": wandb}}
        self._sinks: dict[str, Sink] = {}
        for target in [*targets, *(name for name in settings if name not in targets)]:
            if isinstance(target, Sink):
                self._sinks[type(target).__name__] = target
            else:
                self._sinks[target.rpartition(".")[2]] = sink(target, **settings.get(target, {}))
        self._folder = None if save_dir is None else Path(save_dir)
        self._configs: dict[str, dict[str, Any]] = {}
        self._bank_config: dict[str, Any] = {}
        self._runs: dict[str, Run] = {}
        self._resume_step: int | None = None
        self._step = 0

    def set_folder(self, path: str | os.PathLike) -> None:
        """Write into the run folder `path` from now on."""
        if self._folder != Path(path):
            self.finalize("success")
            self._folder, self._runs, self._resume_step = Path(path), {}, None

    @rank_zero_only
    def set_saes(self, configs: Mapping[str, Any]) -> None:
        """Name the SAEs and record their hyper-parameters (plain data or dataclasses), before anything is logged.

        With a folder, every run is opened at once, so that what cannot be opened is known before training.
        """
        if BANK in configs:
            raise UserError(f"an SAE cannot be named {BANK!r}, the run of what belongs to no single SAE: rename it")
        self._configs = {name: _plain(config) for name, config in configs.items()}
        if self._folder is not None:
            for name in self._configs:
                self._run(name)

    @rank_zero_only
    def resume(self, step: int) -> None:
        """Training goes on from `step`: forget what a killed run wrote later than that. After `set_folder`."""
        self._resume_step = step
        for run in self._runs.values():
            run.resume(step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write each SAE's metrics to its run; without a step, at the last one."""
        self._step = step = self._step if step is None else step
        by_sae: dict[str, dict[str, float]] = {}
        for name, value in metrics.items():
            sae, slash, tag = name.partition("/")
            if slash and (sae in self._configs or not self._configs):
                by_sae.setdefault(sae, {})[tag] = float(value)
            elif name != "epoch":
                by_sae.setdefault(BANK, {})[name] = float(value)
        shared = by_sae.pop(BANK, {})
        if shared:
            self._run(BANK).log(shared, step)
            if any(one.takes_shared for one in self._sinks.values()):
                by_sae = {name: {} for name in self._configs} | by_sae
        for name, values in by_sae.items():
            self._run(name).log(values, step, shared)

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace | None = None, *args: Any, **kwargs: Any) -> None:
        """Lightning's hyper-parameters: `saes` by SAE, the rest to the run `bank`."""
        params = dict(vars(params) if isinstance(params, Namespace) else params or {})
        saes = params.pop("saes", None)
        self._bank_config |= _plain(params)
        if isinstance(saes, Mapping) and not self._configs:
            self.set_saes(saes)

    @rank_zero_only
    def save(self) -> None:
        """Put on the disk what is still held back."""
        for run in self._runs.values():
            run.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the runs as finished or failed. Logging more later is fine."""
        for run in self._runs.values():
            run.finish(exit_code=int(status != "success"))

    @property
    @rank_zero_experiment
    def experiment(self) -> dict[str, Run]:
        """The runs opened so far, by SAE: `.tensorboard`, `.wandb`, … take figures and histograms."""
        return self._runs

    @property
    def name(self) -> str:
        """Nothing: Lightning would add it to the run folder, which has its name already."""
        return ""

    @property
    def version(self) -> str:
        """Nothing, as `name`."""
        return ""

    @property
    def save_dir(self) -> str | None:
        """The run folder; Lightning's callbacks write here."""
        return None if self._folder is None else str(self._folder)

    @property
    def root_dir(self) -> str | None:
        """The run folder."""
        return self.save_dir

    @property
    def log_dir(self) -> str | None:
        """`<run folder>/logs`, with a folder per SAE: what `tensorboard --logdir` takes."""
        return None if self._folder is None else str(self._folder / "logs")

    def _run(self, name: str) -> Run:
        if name not in self._runs:
            if self._folder is None:
                raise UserError("PerSAE has no folder to write to: give it save_dir, or use saelight's Trainer")
            config, sinks = self._configs.get(name, {}), self._sinks
            if name == BANK:
                config, sinks = self._bank_config, {key: one for key, one in sinks.items() if not one.takes_shared}
            self._runs[name] = Run(self._folder, name, config, sinks)
            if self._resume_step is not None:
                self._runs[name].resume(self._resume_step)
        return self._runs[name]

    def __getstate__(self) -> dict[str, Any]:
        """Open runs stay behind when a strategy sends the logger to another process."""
        return {**self.__dict__, "_runs": {}}


def _plain(config: Any) -> dict[str, Any]:
    """A configuration as plain data; what JSON does not know is shown as text."""
    if is_dataclass(config) and not isinstance(config, type):
        kind = type(config)
        config = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": asdict(config)}
    return json.loads(json.dumps(dict(config), default=str))
