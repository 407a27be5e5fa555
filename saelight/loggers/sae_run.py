"""One SAE's run: the same numbers in every sink."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from saelight.loggers.sink import Sink, SinkRun
from saelight.loggers.sinks import SINKS


class Run:
    """Writes hparams.yaml into `<folder>/logs/<name>/`, and the numbers to sinks.

    `run.tensorboard`, `run.wandb`, … are what the sinks of these names give for figures and histograms; None without them.

    Args:
        folder: the run folder; files of an earlier process are gone on with.
        name: the SAE's.
        config: the SAE's hyper-parameters, plain data.
        sinks: by name.
    """

    def __init__(self, folder: Path, name: str, config: dict[str, Any], sinks: Mapping[str, Sink]) -> None:
        own = folder / "logs" / name
        own.mkdir(parents=True, exist_ok=True)
        if config:
            (own / "hparams.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        self._takes_shared = {key for key, sink in sinks.items() if sink.takes_shared}
        self._runs: dict[str, SinkRun] = {key: sink.open(folder, name, config) for key, sink in sinks.items()}

    def __getattr__(self, name: str) -> Any:
        runs = self.__dict__.get("_runs", {})
        if name in runs:
            return runs[name].experiment
        if name in SINKS:
            return None
        raise AttributeError(f"there is no sink {name!r} here, only {', '.join(runs) or 'none'}")

    def log(self, metrics: dict[str, float], step: int, shared: dict[str, float] | None = None) -> None:
        """Write `metrics` at `step`; `shared` ones, which belong to no SAE, to the sinks that take them."""
        for key, run in self._runs.items():
            values = {**metrics, **(shared or {})} if key in self._takes_shared else metrics
            if values:
                run.log(values, step)

    def resume(self, step: int) -> None:
        """Forget what is later than `step`, where a sink can."""
        for run in self._runs.values():
            run.resume(step)

    def flush(self) -> None:
        """Put on the disk what is still held back."""
        for run in self._runs.values():
            run.flush()

    def finish(self, exit_code: int) -> None:
        """End the runs, finished or failed; the next `log` goes on with them."""
        for run in self._runs.values():
            run.finish(exit_code)
