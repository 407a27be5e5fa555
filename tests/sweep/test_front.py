"""What a sweep says before anything trains: refusals, forecasts, and how fast."""

import subprocess
import sys
from pathlib import Path

from tests.support.commands import refused, saelight_
from tests.support.sweeps import BASE, SWEEP, write


def test_refusals(capsys):
    file = write()
    line = refused(capsys, "sweep", "run", file, "--devices", "cuda:7")
    assert "there is no device 'cuda:7'; here are " in line
    assert "no index.json" in refused(capsys, "sweep", "status", ".")
    assert "write --set KEY=VALUE" in refused(capsys, "sweep", "expand", file, "--set", "sae.lr")
    assert "expected a whole number of at least 1" in refused(capsys, "sweep", "run", file, "--limit", "0")
    assert not Path("runs").exists()

    assert saelight_("sweep", "expand", file, "--out", "s") == 0
    capsys.readouterr()
    yaml = Path("s/groups/group-000.yaml")
    text = yaml.read_text()
    yaml.write_text(text.replace("k: 4", "k: 3"))
    line = refused(capsys, "sweep", "run", "s")
    assert "s/groups/group-000.yaml was edited and no longer fits the index" in line
    yaml.write_text(text)
    Path("s/runs/group-000").mkdir(parents=True)
    yaml.write_text(text.replace("k: 4", "k: 3"))
    assert "was edited, after its run began," in refused(capsys, "sweep", "run", "s", "--resume")
    yaml.write_text(text)
    assert "s was begun (1 of 1 groups): go on with --resume" in refused(capsys, "sweep", "run", file, "--out", "s")


def test_a_dry_run_says_what_would_run_where_and_writes_nothing(capsys):
    file = write()
    assert saelight_("sweep", "run", file, "--dry-run", "--devices", "cpu,cpu") == 0
    out = capsys.readouterr().out
    assert "small: 6 points, 2 groups" in out
    assert "to run: 6 SAEs in 2 groups on cpu, cpu; disk " in out
    assert sorted(path.name for path in Path().iterdir()) == ["base.yaml", "sweep.yaml"]


def test_missing_data_is_said_at_once_and_refused_only_when_it_is_to_run(capsys):
    base = BASE | {"data": {"class_path": "ActivationDataModule", "init_args": {"path": "shards/none"}}}
    file = write(SWEEP, base)
    assert saelight_("sweep", "expand", file) == 0
    assert "note: no shards at shards/none" in capsys.readouterr().out
    assert "no shards at shards/none" in refused(capsys, "sweep", "run", file)


LIGHT = """
import sys
from saelight.cli.main import main

def run(command, absent):
    try:
        code = main(command.split())
    except SystemExit as stop:
        code = stop.code
    assert not code, command
    assert absent not in sys.modules, command

for command in ("sweep --help", "sweep run --help", "sweep status s", "sweep results s"):
    run(command, "torch")
for command in ("sweep expand sweep.yaml --out t", "sweep run sweep.yaml --dry-run"):
    run(command, "lightning")
"""


def test_the_front_is_light():
    assert saelight_("sweep", "expand", write(), "--out", "s") == 0
    subprocess.run([sys.executable, "-c", LIGHT], check=True, capture_output=True)
