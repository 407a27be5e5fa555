"""What a logger sink is: CSV files, TensorBoard, W&B, or a user's own (docs/logging.md)."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar


class SinkRun(ABC):
    """Where the numbers of one SAE go."""

    @property
    def experiment(self) -> Any:
        """What takes figures and the like: `logger.experiment[<sae>].<sink>`."""
        return self

    @abstractmethod
    def log(self, metrics: dict[str, float], step: int) -> None:
        """Keep `metrics`, by tag, of optimizer step `step`. Also after `finish`: the run is then gone on with."""

    def resume(self, step: int) -> None:  # noqa: B027  (not abstract: a service that takes nothing back has none)
        """Training goes on from `step`: forget what is later."""

    def flush(self) -> None:  # noqa: B027  (not abstract: what writes at once has none)
        """Put on the disk what is still held back."""

    def finish(self, exit_code: int) -> None:
        """The end of training: 0 when all went well."""
        self.flush()


class Sink(ABC):
    """Opens one run per SAE."""

    takes_shared: ClassVar[bool] = False
    """Whether each SAE's run takes the metrics of no single SAE (`tokens`, `throughput/…`) too, as where runs are compared
    one by one. If not, they go to a run of their own, `bank`."""

    @abstractmethod
    def open(self, folder: Path, name: str, config: dict[str, Any]) -> SinkRun:
        """Start the run of the SAE `name`, or go on with it.

        Args:
            folder: The run folder. `folder/logs/<name>/` is there, for the sink's own files.
            config: The SAE's hyper-parameters, plain data.

        Raises:
            UserError: It cannot be opened.
        """
