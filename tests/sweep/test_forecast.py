"""What a dry run says that a sweep will take, beside what it takes."""

import json
import re
import time
from pathlib import Path

import pytest

from tests.support.commands import changed, saelight_
from tests.support.sweeps import BASE, write

UNITS = {"KB": 1e3, "MB": 1e6, "GB": 1e9}
# Wide enough for weights to be most of what is written, and products most of what takes time.
WIDE = changed(BASE, data__init_args={"d_in": 128, "rows": 40_000, "val_rows": 100, "batch_size": 400})
ONE = {"name": "one", "base": "base.yaml", "sae": {"class_path": "ReLU", "d_sae": 2048}}


@pytest.mark.slow
def test_disk_and_time_are_about_what_a_run_takes(capsys):
    file = write(ONE | {"parameters": {"sae.lr": {"values": [1e-3]}}}, WIDE)
    assert saelight_("sweep", "run", file, "--devices", "cpu", "--dry-run") == 0
    said = capsys.readouterr().out
    size, unit = re.search(r"; disk ([\d.]+) (\w+);", said).groups()
    minutes, seconds = re.search(r"about (\d+):(\d+)$", said.strip()).groups()

    start = time.monotonic()
    assert saelight_("sweep", "run", file, "--devices", "cpu") == 0
    took = time.monotonic() - start
    written = sum(path.stat().st_size for kind in ("*.ckpt", "*.safetensors") for path in Path("runs/one/runs").rglob(kind))
    assert float(size) * UNITS[unit] == pytest.approx(written, rel=0.1)
    assert 0 < 60 * int(minutes) + int(seconds) < 6 * took


@pytest.mark.parametrize(
    "length",
    [{"max_steps": 4, "max_epochs": -1}, {"max_epochs": 2}],
    ids=["steps", "epochs, whose last step has fewer batches"],
)
def test_a_groups_tokens_are_those_that_its_run_trains_on(length):
    base = BASE | {"trainer": BASE["trainer"] | {"accumulate_grad_batches": 3} | length}
    file = write(ONE | {"parameters": {"sae.d_sae": {"value": 16}}}, base)
    assert saelight_("sweep", "expand", file, "--out", "s") == 0
    [group] = json.loads(Path("s/index.json").read_text())["groups"].values()
    assert saelight_("fit", "--config", "s/groups/group-000.yaml") == 0
    [result] = map(json.loads, Path("runs/group-000/results.jsonl").read_text().splitlines())
    assert group["tokens"] == result["tokens"]
