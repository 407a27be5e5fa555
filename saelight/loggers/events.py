"""TensorBoard events of one run. Importing this takes more than a second: do so where events are written."""

import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams


class Events(SummaryWriter):
    """A `SummaryWriter` that writes many scalars as one event, and forgets what a killed run wrote too much."""

    def __init__(self, folder: Path) -> None:
        # Readers take a folder's files in the order of their names, in which only the second tells old from new.
        seconds = [int(file.name.split(".")[3]) for file in folder.glob("events.out.tfevents.*")]
        while int(time.time()) in seconds:
            time.sleep(0.05)
        super().__init__(str(folder), flush_secs=15)

    def add_row(self, metrics: dict[str, float], step: int) -> None:
        """Write all metrics of a step. One event for each would fill the writer's queue, and wait for its thread."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in metrics.items()]
        self._get_file_writer().add_summary(Summary(value=values), step)

    def add_settings(self, settings: dict[str, bool | float | str], metrics: tuple[str, ...]) -> None:
        """Fill the run's row of the HPARAMS tab: its settings, and the tags of scalars that are shown beside them."""
        tab, row, _ = hparams(settings, dict.fromkeys(metrics, 0.0))
        for part in (tab, row):
            self._get_file_writer().add_summary(part)

    def forget_after(self, step: int) -> None:
        """Have readers drop what was written later than `step`: `purge_step`, without beginning another file."""
        start = Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        self._get_file_writer().add_event(start, step + 1)
