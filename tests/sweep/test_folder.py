"""What lies in a sweep's folder: written by several at once, read while it is written, damaged, or from elsewhere."""

import csv
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import pytest

from saelight.errors import UserError
from saelight.sweep.execute.launch.logs import last_words
from saelight.sweep.show.status import watch
from saelight.sweep.store import result_files, run_files
from saelight.sweep.store.journal import Journal
from saelight.sweep.store.result_rows import collect
from saelight.sweep.store.runner_lock import only_runner
from saelight.sweep.store.sweep_folder import SweepFolder
from tests.support.commands import refused, saelight_
from tests.support.sweeps import write


@pytest.fixture
def folder():
    """Of a sweep of six points, expanded."""
    assert saelight_("sweep", "expand", write(), "--out", "s", "--devices", "cpu") == 0
    return SweepFolder("s")


def test_results_written_by_many_at_once_are_whole_whenever_read(folder):
    index, problems = folder.read(), []
    done = threading.Event()

    def write_them() -> None:
        try:
            for _ in range(8):
                result_files.write(folder, index)
        except Exception as error:
            problems.append(error)

    def read_them() -> None:
        while not done.is_set():
            for name in ("results.json", "results.csv"):
                if (path := folder.path / name).is_file():
                    text = path.read_text()
                    rows = json.loads(text) if path.suffix == ".json" else list(csv.DictReader(text.splitlines()))
                    if len(rows) != 6:
                        problems.append(text)

    reader = threading.Thread(target=read_them)
    writers = [threading.Thread(target=write_them) for _ in range(4)]
    reader.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    assert problems == []
    assert not list(folder.path.glob("*.partial"))


def test_rows_name_their_sweep_and_load_from_anywhere(folder, monkeypatch):
    result_files.write(folder, folder.read())
    with Path("s/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert next(iter(rows[0])) == "sweep"
    assert {row["sweep"] for row in rows} == {"small"}
    here = Path.cwd()
    monkeypatch.chdir("/")
    assert {Path(row["folder"]).parent for row in rows} == {here / "s/runs/group-000/saes"}


def test_a_watcher_does_not_wait_for_a_runner_that_is_gone(folder, capsys):
    start = time.monotonic()
    watch(folder, every=0.01, patience=0.1)
    assert time.monotonic() - start < 5
    assert "nobody trains what waits: `saelight sweep run s --resume` does" in capsys.readouterr().out
    with only_runner(folder):
        watcher = threading.Thread(target=watch, args=(folder, 0.01, 0.1))
        watcher.start()
        time.sleep(0.4)
        assert watcher.is_alive()
    watcher.join(10)
    assert not watcher.is_alive()


def ended_process():
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


@pytest.mark.parametrize(
    ("pid", "state"), [(os.getpid, "running"), (ended_process, "interrupted"), (lambda: "x", "interrupted")]
)
def test_a_group_that_has_just_been_started_runs(pid, state, folder):
    Journal(folder.path).add("group-000", "submitted", pid=pid(), device="cpu")
    assert {row["state"] for row in collect(folder, folder.read())} == {state}


def test_a_watcher_waits_for_a_runner_whatever_its_groups_are(folder):
    for group in folder.read().groups:
        Journal(folder.path).add(group, "submitted", pid=ended_process(), device="cpu")
    with only_runner(folder):
        watcher = threading.Thread(target=watch, args=(folder, 0.01, 0.1))
        watcher.start()
        time.sleep(0.4)
        assert watcher.is_alive()
    watcher.join(10)
    assert not watcher.is_alive()


def test_status_may_look_while_a_runner_begins(folder):
    with (folder.path / "lock").open("a+") as lock:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_SH)
        threading.Timer(0.2, lambda: fcntl.flock(lock, fcntl.LOCK_UN)).start()
        with only_runner(folder):
            pass


DAMAGE = {
    "cut short": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "edited": lambda text: text.replace('"small"', '"smaller"'),
    "another group": lambda text: text.replace("group-000", "group-001"),
    "no mapping": lambda text: "[]",
    "nested without end": lambda text: "[" * 100_000,
    "no text": lambda text: "\udcff",
    "another version": lambda text: text.replace('"version": 2', '"version": 1'),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_index_is_one_line(damage, folder, capsys):
    text = folder.index_file.read_text()
    folder.index_file.write_text(DAMAGE[damage](text), errors="surrogateescape")
    for command in (["status", "s"], ["results", "s"], ["run", "s"], ["plot", "s"], ["expand", "sweep.yaml", "--out", "s"]):
        assert "s/index.json" in refused(capsys, "sweep", *command)


@pytest.mark.parametrize("group", ["../../../esc", "/tmp/esc", "group-1/../..", "esc"])
def test_a_folder_from_elsewhere_leads_nowhere_else(group, folder, capsys):
    index = folder.read()
    old = index.groups.pop("group-000")
    old.id = group
    index.groups[group] = old
    folder.commit(index)
    assert f"has a group {group[:40]!r}" in refused(capsys, "sweep", "run", "s", "--resume")
    index.groups = {}
    next(iter(index.entries.values())).name = "../../esc"
    folder.commit(index)
    assert "the point's name '../../esc' cannot be a folder's" in refused(capsys, "sweep", "results", "s")


def test_what_a_run_says_of_itself_is_believed_only_as_a_run_writes_it(tmp_path):
    good = {
        "step": 3,
        "steps": 9,
        "seconds": 1.5,
        "eta": 3.0,
        "saes": {"a": {"state": "running", "reason": None, "val": {}}},
    }
    (tmp_path / "progress.json").write_text(json.dumps(good))
    assert run_files.progress(tmp_path) == good
    for bad in ([], {"saes": []}, good | {"eta": float("nan")}, good | {"step": "x"}, good | {"saes": {"a": {"state": 1}}}):
        (tmp_path / "progress.json").write_text(json.dumps(bad))
        assert run_files.progress(tmp_path) == {}
    for text in ("{", "[]", '{"name": "a"}', "\0"):
        (tmp_path / "results.jsonl").write_text(text + "\n")
        with pytest.raises(UserError, match=r"results.jsonl .*move the run's folder away"):
            run_files.results(tmp_path)


def test_a_journals_foreign_lines_are_left_out(tmp_path):
    journal = Journal(tmp_path)
    journal.add("group-000", "submitted", device="cpu")
    with journal.path.open("ab") as file:
        file.write(
            b'[]\n5\n{"group": 1, "event": "x"}\n{"event": "x"}\n\xff\n{"group": "g", "event": "x", "error": []}\n{"gro'
        )
    journal.add("group-000", "finished")
    assert [event["event"] for event in journal.events()] == ["submitted", "finished"]


TRACE = "Traceback (most recent call last):\n" + '  File "x.py", line 1\n    boom()\n' * 40
WORDS = {
    "saelight's own": (TRACE + "ValueError: x\nsaelight: error: no data: make some\n", "no data: make some; see {log}"),
    "an exception": (
        "step 1\n" + TRACE + "RuntimeError: out of memory\nlater\n",
        "RuntimeError: out of memory (exit code 1); see {log}",
    ),
    "a chain": (f"{TRACE}KeyError: 'a'\n\nDuring …:\n\n{TRACE}my.Error: b\n", "my.Error: b (exit code 1); see {log}"),
    "a word": ("one\n\nthe last words\n\n", "exit code 1: the last words; see {log}"),
    "nothing": ("", "exit code 1; see {log}"),
    "a novel": ("y" * 5000, "exit code 1: " + "y" * 187 + "…; see {log}"),
    "no text": ("\udcff\udcfe", "exit code 1: \ufffd\ufffd; see {log}"),
}


@pytest.mark.parametrize("case", WORDS)
def test_a_crash_is_told_in_a_short_line_by_its_cause_and_its_log(case, tmp_path):
    said, line = WORDS[case]
    log = tmp_path / "group-000.txt"
    earlier = "saelight: error: of an attempt before\n"
    log.write_text(earlier + said, errors="surrogateescape")
    assert last_words(log, "exit code 1", len(earlier)) == line.format(log=log)


def test_a_crash_without_a_log(tmp_path):
    assert last_words(tmp_path / "x", "killed by SIGKILL") == f"killed by SIGKILL; it left no {tmp_path / 'x'}"


def test_a_reader_that_leaves_is_no_error(folder):
    # argparse has its own way to overlook it.
    for args, codes in ((["status", "s"], (141,)), (["results", "s"], (141,)), (["--help"], (0, 141))):
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "saelight", "sweep", *args]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
        os.close(writing)
        assert done.stderr == ""
        assert done.returncode in codes


def test_a_child_whose_runner_died_before_it_looked_does_not_train(folder):
    env = os.environ | {"SAELIGHT_PARENT": str(os.getpid() + 1)}
    child = [sys.executable, "-m", "saelight.sweep.execute.child", "s", "group-000"]
    done = subprocess.run(child, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "saelight: error: the sweep's runner died as it started this: --resume goes on\n"
    assert not (folder.path / "runs").exists()


def test_the_time_left_is_that_of_the_pace_not_of_the_start():
    from saelight.callbacks.write_progress import WriteProgress

    # A minute of start, then ten steps a second.
    paces = deque([(60.0, 10), (61.0, 20), (62.0, 30)])
    assert WriteProgress.left(paces, 1030) == pytest.approx(100.0)
    assert WriteProgress.left(deque([(60.0, 10)]), 1030) is None
    assert WriteProgress.left(deque(), 1030) is None
