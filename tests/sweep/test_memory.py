"""Predicted memory: within 20 % of what a run's process took at its peak, above what it had once all was imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from saelight.sweep.plan.groups import memory_of
from saelight.sweep.plan.spec import read
from tests.support.commands import changed
from tests.support.sweeps import write

MEASURE = """
import sys
import sklearn.cluster
import saelight.cli.training
from torch.utils.tensorboard import SummaryWriter
from saelight.cli.main import main

def read(key):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

before = read("VmRSS")
assert main(["fit", "--config", sys.argv[1]]) == 0
print("peak", read("VmHWM") - before)
"""
BASE = {
    "trainer": {"max_steps": 10, "accelerator": "cpu", "enable_progress_bar": False},
    "model": {"saes": {"any": {"class_path": "TopK"}}},
    "data": {
        "class_path": "SyntheticDataModule",
        "init_args": {"d_in": 384, "n_features": 512, "mean_l0": 16, "rows": 200_000, "val_rows": 2048, "batch_size": 2048},
    },
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def entries(sweep: dict, base: dict) -> list:
    from saelight.sweep.plan.points import expand
    from saelight.sweep.plan.resolve import resolve

    found = read(write(sweep, base))
    return resolve(found, expand(found)[0]).entries


MIXED = {
    "base": "base.yaml",
    "parameters": {"sae.expansion": {"values": [4, 8, 12]}},
    "cases": [{"parameters": {"sae.class_path": {"value": kind}}} for kind in ("TopK", "ReLU")],
}
DENSE = {
    "base": "base.yaml",
    "parameters": {"sae.expansion": {"value": 8}, "sae.lr": {"values": [1e-3, 2e-3]}},
    "cases": [{"parameters": {"sae.class_path": {"value": kind}}} for kind in ("Gated", "HardConcrete")],
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("sweep", [MIXED, DENSE], ids=["mixed", "dense variants"])
def test_the_prediction_is_within_a_fifth(sweep):
    from saelight.sweep.store.sweep_folder import config_of

    members = entries(sweep, BASE)
    run_config = {key: BASE[key] for key in ("trainer", "data")} | {"model": {}}
    Path("group.json").write_text(json.dumps(config_of(run_config, members)))
    out = subprocess.run([sys.executable, "-c", MEASURE, "group.json"], capture_output=True, text=True, check=True).stdout
    measured = int(out.rpartition("peak ")[2])
    assert memory_of(members) == pytest.approx(measured, rel=0.2)


def test_groups_are_split_by_memory():
    from saelight.sweep.plan.groups import split

    members = entries(MIXED, BASE)
    whole = memory_of(members)
    assert len(split(members, None, whole)) == 1
    parts = split(members, None, whole - 1)
    assert len(parts) == 2
    assert all(memory_of(part) < whole for part in parts)
    assert sorted(entry.name for part in parts for entry in part) == sorted(entry.name for entry in members)
    # One that no device has room for is on its own.
    assert [len(part) for part in split(members, None, 1)] == [1] * len(members)


def test_a_gpus_groups_are_split_by_the_gpus_prediction():
    from saelight.sweep.plan.groups import split

    wide = changed(BASE, data__init_args={"d_in": 768, "batch_size": 4096})
    swept = {"sae.d_sae": {"value": 16384}, "sae.lr": {"values": [n * 1e-4 for n in range(1, 10)]}}
    gated = {"base": "base.yaml", "sae": {"class_path": "Gated", "optimizer": "adamw"}, "parameters": swept}
    members = entries(gated, wide)
    # 16 bytes for each of 25 million weights nine times over, one SAE's step, a gigabyte, the data.
    assert memory_of(members, ("gpu",)) == pytest.approx(6.7e9, rel=0.05)
    assert memory_of(members, ("cpu", "gpu")) == memory_of(members) > 15e9
    assert len(split(members, None, 7 * 10**9, kinds=("gpu",))) == 1
    assert len(split(members, None, 7 * 10**9)) == 9
    mixed, full = (entries(gated, changed(wide, trainer__precision=precision)) for precision in ("bf16-mixed", "32-true"))
    assert memory_of(mixed, ("gpu",)) < 0.95 * memory_of(full, ("gpu",)) == 0.95 * memory_of(members, ("gpu",))
    assert memory_of(mixed) == memory_of(full)


def test_groups_have_about_equal_work_and_at_most_max_saes():
    from saelight.sweep.plan.groups import split

    members = entries(changed(MIXED, parameters={"sae.expansion": {"values": list(range(1, 13))}}), BASE)
    parts = split(members, None, None, at_least=3)
    work = [sum(entry.parameters for entry in part) for part in parts]
    assert len(parts) == 3
    assert max(work) < 1.05 * min(work)
    assert max(len(part) for part in split(members, 5, None)) == 5
