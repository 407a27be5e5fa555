"""The contract of launchers: one that a user writes is found by its class path, with its options, and runs a sweep."""

import sys
from pathlib import Path

import pytest

from saelight.cli.main import main
from saelight.sweep.execute.launch import LAUNCHERS
from saelight.sweep.execute.launch.reconcile import reconcile_jobs
from saelight.sweep.store.journal import Journal
from saelight.sweep.store.sweep_folder import SweepFolder
from tests.support.sweeps import write

HERE = '''
"""A queue: groups are trained one after the other, as they are asked after."""
import subprocess
import sys
from saelight.sweep.execute.launch import Launcher, Outcome


class Queue(Launcher):
    name = "queue"
    summary = "one after the other"
    detaches = True

    @staticmethod
    def add_options(parser):
        parser.add_argument("--gpus", default="none", help="named as Slurm's")
        parser.add_argument("--nice", type=int, default=0)

    def __init__(self, folder, devices, parallel, *, gpus, nice):
        super().__init__(folder, devices, parallel)
        self.gpus, self.nice = gpus, nice
        self.waiting, self.codes = [], {}

    @property
    def workers(self):
        return ["somewhere"] * (self.parallel or 2)

    @property
    def memory_limit(self):
        return 10**9

    def check(self):
        assert self.gpus == "many"

    def free(self):
        return len(self.workers) - len(self.waiting)

    def submit(self, groups):
        self.waiting += [group.id for group in groups]
        return [{"device": "somewhere", "job": f"{group.id}-{self.nice}"} for group in groups]

    def poll(self):
        if not self.waiting:
            return []
        group = self.waiting.pop(0)
        child = [sys.executable, "-m", "saelight.sweep.execute.child", str(self.folder.path), group]
        done = subprocess.run([*child, "--trainer.accelerator=cpu", "--trainer.devices=1"], capture_output=True, text=True)
        return [Outcome(group, self.folder.finished(group), done.stderr[-300:])]

    def cancel(self):
        self.waiting.clear()

    @classmethod
    def ended(cls, folder, jobs):
        return [Outcome(group, False, f"job {job} was lost") for group, job in jobs.items()]
'''


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """The class path of a user's launcher, and a sweep's file in the folder at hand."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "elsewhere.py").write_text(HERE)
    monkeypatch.syspath_prepend(tmp_path / "mine")
    yield "elsewhere.Queue"
    sys.modules.pop("elsewhere", None)


def test_a_launcher_of_the_users_own_plans_and_runs_a_sweep(queue, capsys):
    file = write()
    args = ["sweep", "run", file, "--launcher", queue, "--gpus", "many", "--nice", "3"]
    assert main([*args, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "small: 6 points, 2 groups" in out
    assert "to run: 6 SAEs in 2 groups on somewhere, somewhere; disk " in out
    assert not Path("runs").exists()
    # Its own capacity: one at once is one group.
    assert main([*args, "--max-parallel", "1", "--limit", "1"]) == 0
    assert "group-000: 1 SAEs on somewhere" in capsys.readouterr().out
    submitted, finished = Journal(Path("runs/small")).events()
    assert (submitted["launcher"], submitted["job"], finished["event"]) == ("queue", "group-000-3", "finished")


def test_its_options_are_in_the_help_and_belong_to_it(queue, capsys):
    with pytest.raises(SystemExit):
        main(["sweep", "run", "--launcher", queue, "--help"])
    out = capsys.readouterr().out
    assert "--nice" in out
    assert "named as Slurm's" in out
    assert "--partition" in out
    file = write()
    assert main(["sweep", "run", file, "--launcher", queue, "--partition", "gpu"]) == 1
    assert "--partition goes with --launcher slurm: add that, or drop it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sweep", "run", file, "--nice", "3"])
    assert "unrecognized arguments: --nice 3" in capsys.readouterr().err


def test_what_it_queued_is_followed_up_only_where_saelight_has_it(queue, capsys, monkeypatch):
    file = write()
    assert main(["sweep", "run", file, "--launcher", queue, "--gpus", "many", "--no-wait", "--max-parallel", "1"]) == 0
    assert "submitted: `saelight sweep status runs/small`" in capsys.readouterr().out
    folder = SweepFolder("runs/small")
    reconcile_jobs(folder)
    assert Journal(folder.path).jobs() == {"group-000": "group-000-0"}
    monkeypatch.setitem(LAUNCHERS, "queue", sys.modules["elsewhere"].Queue)
    reconcile_jobs(folder)
    assert Journal(folder.path).last()["group-000"]["error"] == "job group-000-0 was lost"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("slrum", "--launcher slrum: there is no such launcher; did you mean 'slurm'?"),
        ("kubernetes", "--launcher kubernetes: there is no such launcher: give local, ddp, slurm, or a class path"),
        ("elsewhere.Quue", "--launcher elsewhere.Quue: module 'elsewhere' has no attribute 'Quue'; name a class"),
        ("nowhere.Queue", "--launcher nowhere.Queue: No module named 'nowhere'; name a class"),
        (
            "pathlib.Path",
            "--launcher pathlib.Path is no launcher: derive it from saelight.sweep.execute.launch.Launcher",
        ),
    ],
)
def test_a_launcher_that_is_none_is_refused_in_one_line(name, message, queue, capsys):
    assert main(["sweep", "run", write(), "--launcher", name]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"saelight: error: {message}")
    assert error.count("\n") == 1
