"""The figures of a sweep as files and in TensorBoard, and what is said when they cannot be drawn."""

import io
import subprocess
import sys

import matplotlib
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from saelight.errors import UserError
from saelight.sweep.show.plot import plot
from tests.sweep.rows import SETTINGS, sweep

ALL = ["pareto.png", "time_loss.png", "sensitivity.png", "throughput.png"]


def pngs(files) -> list[str]:
    return [file.name for file in files if file.suffix == ".png"]


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (sweep(1), ALL[:2]),
        (sweep(6, {"sae.class_path": ("Gated", "ReLU"), "sae.sparsity": (0.01, 0.03, 0.1)}), ALL[:2]),
        (sweep(54, SETTINGS), ALL),
        (sweep(912), ALL[:3]),
    ],
    ids=["1", "6", "54", "912"],
)
def test_figures_are_pngs_of_full_size(rows, names, tmp_path):
    said = []
    files = plot(rows, tmp_path / "plots", said.append)
    assert pngs(files) == names
    assert all(file.is_file() for file in files)
    assert [line.split(":")[0] + ".png" for line in said] == [name for name in ALL if name not in names]
    for name in names:
        with Image.open(tmp_path / "plots" / name) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) >= 500
            assert len(image.convert("RGB").getcolors(1 << 20)) > 20


def test_tensorboard_reads_the_same_images_back_one_step_for_each_plot(tmp_path):
    rows = sweep(54, SETTINGS)
    for finished in (20, 54):
        for i, row in enumerate(rows):
            row["state"] = "finished" if i < finished else "waiting"
        plot(rows, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert sorted(events.Tags()["images"]) == sorted(name.removesuffix(".png") for name in ALL)
    for name in ALL:
        early, late = events.Images(name.removesuffix(".png"))
        assert (early.step, late.step) == (20, 54)
        assert late.encoded_image_string == (tmp_path / name).read_bytes()
        assert (late.width, late.height) == Image.open(io.BytesIO(late.encoded_image_string)).size
    early, late = events.Images("pareto")
    assert early.encoded_image_string != late.encoded_image_string


def test_a_sweep_without_a_finished_point_has_nothing_to_plot(tmp_path):
    rows = sweep(3, state="running")
    with pytest.raises(UserError, match="none of the 3 points has finished; plot again when one has"):
        plot(rows, tmp_path / "plots")
    assert not (tmp_path / "plots").exists()


def test_without_matplotlib_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'saelight\[plot\]'"):
        plot(sweep(3), tmp_path)


def test_the_users_own_style_neither_shows_nor_changes(tmp_path):
    rows = sweep(6)
    plot(rows, tmp_path / "a")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black", "text.usetex": True}):
        plot(rows, tmp_path / "b")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a" / "pareto.png").read_bytes() == (tmp_path / "b" / "pareto.png").read_bytes()


def test_plotting_loads_neither_torch_nor_lightning_nor_pyplot(tmp_path):
    code = f"""
import sys
from pathlib import Path
import saelight.sweep.show.plot
assert "matplotlib" not in sys.modules
from tests.sweep.rows import sweep
saelight.sweep.show.plot.plot(sweep(6), Path({str(tmp_path)!r}))
print([name for name in ("torch", "lightning", "matplotlib.pyplot") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
