"""What a dry run says: of what has no room, of a search, of a queue; and that it says the same the next time."""

import re
import shutil
from pathlib import Path

import pytest

from saelight.ops.host_memory import host_memory
from saelight.sweep.execute.devices import Device
from saelight.sweep.execute.forecast import rate_of
from saelight.sweep.execute.launch.local import LocalLauncher
from saelight.sweep.execute.oversize import too_large
from saelight.sweep.plan.entry import Entry
from saelight.sweep.store.sweep_folder import Group, SweepFolder
from tests.support.commands import CONFIG, changed, refused, saelight_
from tests.support.commands import write as write_config
from tests.support.sweeps import SWEEP, write

BIG = {
    "name": "big",
    "base": "base.yaml",
    "sae": {"class_path": "ReLU"},
    "parameters": {"sae.d_sae": {"values": [16, 10**8]}},
}


def test_what_no_device_has_room_for_is_not_to_run(capsys):
    file = write(BIG)
    assert saelight_("sweep", "run", file, "--dry-run", "--devices", "cpu") == 0
    said = capsys.readouterr().out
    assert re.search(
        r"too large: d100000000 \(group-000, d_sae 100000000\) takes about [\d.]+ [GT]B, and a run on cpu may", said
    )
    assert "to run: 1 SAEs in 1 groups on cpu; " in said
    assert "lower its d_sae, " in refused(capsys, "sweep", "run", file, "--devices", "cpu")
    assert not Path("runs").exists()
    assert saelight_("sweep", "run", file, "--dry-run", "--devices", "cpu", "--filter", "d100000000") == 0
    assert capsys.readouterr().out.endswith("to run: nothing\n")


class Nowhere(LocalLauncher):
    """This machine's launcher, on devices of any size."""

    @property
    def memory_limit(self):
        return self.devices[0].memory


@pytest.mark.parametrize(
    ("devices", "memory", "needed"),
    [
        ("cuda:0", 80, None),
        ("cuda:0", 30, "40.0 GB"),
        ("cpu", 80, "90.0 GB"),
        ("cpu", 91, None),
        ("cuda:0 cpu", 80, "90.0 GB"),  # a group may come to either
    ],
)
def test_a_device_is_judged_by_its_own_prediction(devices, memory, needed):
    sae = {"optimizer": "adamw"}
    needs = {"cpu": [60 * 10**9, 20 * 10**9, 10 * 10**9], "gpu": [32 * 10**9, 7 * 10**9, 10**9]}
    entry = Entry("h", "wide", ["wide"], 0, {}, sae, "c", "TopK", 10**6, 2 * 10**9, needs, None)
    group = Group("group-000", ["h"], "", 90 * 10**9, None)
    launcher = Nowhere(SweepFolder("s"), [Device(device, "", memory * 10**9) for device in devices.split()], None)
    found = too_large([(group, [entry])], launcher)
    assert needed is None or f"wide (group-000, d_sae 1000000) takes about {needed}" in found["group-000"]
    assert bool(found) == bool(needed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model__saes__relu__init_args": {"d_sae": 10**8}, "data__init_args__d_in": 1024},
            "the SAEs' weights alone would take 819.",
        ),
        (
            # Small weights: it is the latents of a batch that have no room.
            {
                "model__saes__relu__init_args": {"d_sae": host_memory() // 10**6},
                "data__init_args__batch_size": 10**6,
                "data__init_args__rows": 2 * 10**6,
            },
            "training these 2 SAEs takes about ",
        ),
    ],
)
def test_fit_says_so_too(changes, message, capsys):
    assert saelight_("fit", "--config", write_config(changed(CONFIG, **changes))) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("saelight: error: ")
    assert message in line
    assert not Path("runs").exists()


def test_a_search_says_what_is_known_of_it(capsys):
    search = SWEEP | {"method": "bayes", "run_cap": 20, "max_saes": 6}
    assert saelight_("sweep", "run", write(search), "--dry-run", "--devices", "cpu,cpu") == 0
    said = capsys.readouterr().out
    assert "20 trials, asked for 6 at a time as they learn from val/fvu (minimize): 4 groups or more, 2 at once" in said
    assert re.search(r"\ngroup-000 +cpu +6 +[\d.]+ MB", said)
    assert re.search(r"to run: 24 SAEs in 4 groups on cpu, cpu; disk [\d.]+ KB; about 0:\d\d$", said.strip())
    assert not Path("runs").exists()


def test_slurm_shows_its_script(capsys):
    args = [
        "--launcher",
        "slurm",
        "--gpus",
        "0",
        "--sbatch",
        "output=a.txt",
        "--sbatch",
        "mem=4G",
        "--sbatch",
        "output=b.txt",
    ]
    assert saelight_("sweep", "run", write(), "--dry-run", *args, "--time", "10") == 0
    said = capsys.readouterr().out
    assert re.search(r"\ngroup-000 +slurm +6 ", said)
    assert "cpu " not in said.partition("#!/bin/bash")[0]
    directives = re.findall(r"^#SBATCH --([\w-]+)", said, re.MULTILINE)
    assert len(directives) == len(set(directives))
    assert "#SBATCH --output=b.txt\n" in said
    assert "#SBATCH --time=10\n" in said
    assert "saelight.sweep.execute.child" in said
    assert not Path("runs").exists()


def test_slurm_without_sbatch_leaves_nothing_behind(capsys, monkeypatch):
    if folder := shutil.which("sbatch"):
        monkeypatch.setenv("PATH", "/nowhere")
        assert shutil.which("sbatch") != folder
    for more in (["--no-wait"], []):
        assert "there is no sbatch on PATH" in refused(capsys, "sweep", "run", write(), "--launcher", "slurm", *more)
        assert sorted(path.name for path in Path().iterdir()) == ["base.yaml", "sweep.yaml"]
    line = refused(capsys, "sweep", "run", write(), "--launcher", "slurm", "--sbatch", "array=0-3")
    assert "--sbatch array=0-3: the array is the sweep's groups" in line
    assert "write --sbatch KEY=VALUE" in refused(capsys, "sweep", "run", write(), "--launcher", "slurm", "--sbatch", "=3")


def test_the_speed_is_the_same_from_run_to_run():
    rates = [rate_of([Device("cpu", "", 0)]) for _ in range(3)]
    assert max(rates) < 1.5 * min(rates)
