"""Groups of a sweep that train at once on what one pass of a model makes, in processes of their own: some are killed."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.data.from_model import SETTINGS, write_text
from tests.support import letter_models
from tests.support.commands import changed, saelight_
from tests.support.processes import start, wait_until
from tests.support.sweeps import assert_equal, weights, write

pytestmark = pytest.mark.slow

MODEL = """
import hashlib, os, time
import transformers

def make():
    folder = os.environ["COUNTED"]
    network = transformers.AutoModel.from_pretrained(folder)

    def note(module, args, kwargs):
        ids = kwargs["input_ids"].numpy()
        if (ids != ids[0, 0]).any():  # not of the probe
            time.sleep(0.005)
            with open(folder + ".log", "a") as file:
                file.write(f"{os.getpid()} {hashlib.sha256(ids.tobytes()).hexdigest()}\\n")

    network.register_forward_pre_hook(note, with_kwargs=True)
    return network, transformers.AutoTokenizer.from_pretrained(folder)
"""
"""A module that makes a model, which writes into a file what it is given."""
SWEEP = {
    "name": "small",
    "base": "base.yaml",
    "sae": {"class_path": "TopK", "expansion": 2, "k": 2},
    "max_saes": 1,
    "parameters": {"sae.k": {"values": [2, 4]}},
}
ALONE = ("--devices", "cpu,cpu", "--out", "alone", "--set", "data.shared_gb=0")
SHARED = ("--devices", "cpu,cpu", "--out", "shared")


@pytest.fixture
def base(tmp_path, monkeypatch):
    """The config of a model that counts its passes."""
    model = letter_models.llama(tmp_path / "letters")
    (tmp_path / "counted_model.py").write_text(MODEL)
    monkeypatch.setenv("COUNTED", model)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.syspath_prepend(tmp_path)
    files = [write_text(tmp_path / "text", 400)]
    data = SETTINGS | {"model": "counted_model:make", "files": files, "rows": 14_000, "max_samples": None}
    return {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {"saes": {"any": {"class_path": "TopK"}}},
        "data": {"class_path": "ModelDataModule", "init_args": data},
    }


def passes():
    """Each batch of windows that models were given since the last call, and how often; by process, too."""
    log = Path("letters.log")
    lines = [line.split() for line in log.read_text().splitlines()]
    log.unlink()
    return Counter(batch for _, batch in lines), Counter(pid for pid, _ in lines)


def pids(folder):
    """The process that each group was last given to."""
    events = map(json.loads, Path(folder, "state.jsonl").read_text().splitlines())
    return {event["group"]: event["pid"] for event in events if "pid" in event}


def test_two_groups_share_a_pass_and_end_as_each_alone(base):
    file = write(SWEEP, base)
    assert saelight_("sweep", "run", file, *ALONE) == 0
    batches, _ = passes()
    assert {*batches.values()} == {2}
    assert saelight_("sweep", "run", file, *SHARED) == 0
    assert len(pids("shared")) == 2
    shared, by_process = passes()
    assert shared.keys() == batches.keys()
    assert {*shared.values()} == {1}
    assert len(by_process) == 2, "both devices make a part"
    assert_equal(weights("shared"), weights("alone"))


def test_groups_of_other_hooks_share_it_too(base):
    hooks = {"data.hooks": {"values": [["layers.0"], ["layers.1"]]}}
    file = write(SWEEP | {"parameters": hooks}, base)
    assert saelight_("sweep", "run", file, *ALONE) == 0
    batches, _ = passes()
    assert saelight_("sweep", "run", file, *SHARED) == 0
    assert passes()[0].total() < batches.total()
    assert_equal(weights("shared"), weights("alone"))


def test_groups_that_are_killed_on_the_way_go_on_and_hold_nobody_up(base):
    """In room for three groups of windows, so that who comes back is behind."""
    save = {"class_path": "saelight.callbacks.SaveCheckpoint", "init_args": {"minutes": 0.005}}
    settings = {"trainer__max_epochs": 2, "trainer__callbacks": [save], "data__init_args__shared_gb": 1e-4}
    file = write(SWEEP, changed(base, **settings))
    runner = start("sweep", "run", file, *SHARED)
    for group, number in (("group-000", signal.SIGKILL), ("group-001", signal.SIGTERM)):
        wait_until(Path("shared/runs", group, "checkpoints/last.ckpt").is_file)
        os.kill(pids("shared")[group], number)
    out, _ = runner.communicate(timeout=180)
    assert runner.returncode == 0, out
    assert out.count("failed, once more: ") == 2, out
    assert saelight_("sweep", "run", file, *ALONE) == 0
    assert_equal(weights("shared"), weights("alone"))
