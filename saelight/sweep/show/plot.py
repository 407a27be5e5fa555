"""The figures of a sweep as files: PNGs, and the same images in TensorBoard.

matplotlib is an extra, imported where figures are drawn; neither torch nor Lightning is needed.
"""

import struct
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saelight.errors import UserError


def plot(rows: Sequence[Mapping[str, Any]], out: Path, say: Callable[[str], object] = print) -> list[Path]:
    """Draw a sweep's results (one dict per point, docs/sweeps.md) and return the files written.

    Writes `pareto.png`, `time_loss.png`, `sensitivity.png` and `throughput.png` into `out`, `loss_recovered.png` where SAEs
    were judged on their language model, and the same images as TensorBoard events into `out/tensorboard`, at the number of
    finished points as step: a sweep plotted while it runs shows how it went on. `say` is told of each figure that the rows
    hold nothing for, and why.

    Raises: UserError if matplotlib is missing, or no point has finished.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("plots need matplotlib: pip install 'saelight[plot]'") from None
    from saelight.sweep.show.figures import NothingToDraw, figures_of, png
    from saelight.sweep.show.figures.selection import finished

    done = sum(map(finished, rows))
    if not done:
        raise UserError(f"nothing to plot: none of the {len(rows)} points has finished; plot again when one has")
    images = {}
    for name, draw in figures_of(rows).items():
        try:
            images[name] = png(draw(rows))
        except NothingToDraw as reason:
            say(f"{name}: skipped, {reason}")
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{name}.png" for name in images]
    for file, image in zip(files, images.values(), strict=True):
        file.write_bytes(image)
    return [*files, *_write_events(out / "tensorboard", images, done)] if images else []


def _write_events(folder: Path, images: dict[str, bytes], step: int) -> list[Path]:
    """Write PNGs as image summaries, by TensorBoard's own writer, and return the file they are in."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    before = set(folder.glob("events.out.tfevents.*"))
    writer = EventFileWriter(str(folder))
    for name, image in images.items():
        width, height = struct.unpack(">II", image[16:24])  # of the PNG's header
        shown = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=image)  # 4: RGBA
        event = Event(step=step, wall_time=time.time(), summary=Summary(value=[Summary.Value(tag=name, image=shown)]))
        writer.add_event(event)
    writer.close()
    return sorted(set(folder.glob("events.out.tfevents.*")) - before)
