"""Runs that are at work, were killed, or lack something: the page says so, and shows what there is."""

import json
import math
import random
import shutil
from pathlib import Path

import pytest

from saelight.errors import UserError
from saelight.files import hold
from saelight.report.page import write_report
from tests.report.invented import data_of, invent, read_results, row, write_results
from tests.support.commands import saelight_
from tests.support.sweeps import write as write_sweep

PROGRESS = {"pid": 1, "step": 30, "steps": 100, "tokens": 900, "seconds": 3.0, "device": "cpu"}


def page(folder: Path) -> dict:
    write_report([folder], folder.parent / "report.html")
    return data_of(folder.parent / "report.html")


def write_progress(run: Path, **saes: dict) -> None:
    (run / "progress.json").write_text(json.dumps(PROGRESS | {"saes": saes}))


def test_a_run_at_work_is_running_and_one_that_was_killed_is_interrupted(tmp_path):
    run = invent(tmp_path / "run", 2)
    (run / "results.jsonl").unlink()
    shutil.rmtree(run / "saes")
    retired = {"state": "retired", "reason": "no progress, at step 20", "val": {"l0": 3.0, "fvu": 0.5}, "loss": None}
    write_progress(run, **{"topk-0": {"state": "running", "reason": None, "loss": 0.4}, "relu-1": retired})
    lock = hold(run / ".lock")
    assert lock is not None
    with lock:
        running, ended = page(run)["saes"]
        write_results(run, [row(0, random.Random(0), name="topk-0", state="stopped", reason="its time was over")])
        assert [sae["state"] for sae in page(run)["saes"]] == ["running", "retired"]
    assert (running["state"], running["loss"], running["steps"], running["of_steps"]) == ("running", 0.4, 30, 100)
    assert running["metrics"] == {}
    assert (ended["state"], ended["reason"], ended["metrics"]) == (
        "retired",
        "no progress, at step 20",
        {"l0": 3, "fvu": 0.5},
    )
    assert (running["ended"], ended["ended"]) == (False, True)
    (run / "results.jsonl").unlink()
    data = page(run)
    assert [sae["state"] for sae in data["saes"]] == ["interrupted", "retired"]
    assert (data["best"], data["fronts"]["fvu"]) == ([], [{"all": [], "variants": {}}])


def test_a_run_that_has_said_nothing_but_its_config_shows_its_saes(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    config = {
        "model": {"saes": {"a": {"class_path": "TopK", "init_args": {"k": 4}}, "b": 3}},
        "data": {"init_args": {"batch_size": 64}},
    }
    (run / "config.yaml").write_text(json.dumps(config))
    data = page(run)
    assert [(sae["names"], sae["state"], sae["target"], sae["batch"]) for sae in data["saes"]] == [
        (["a"], "interrupted", 4, 64),
        (["b"], "interrupted", None, 64),
    ]
    [problem] = data["sources"][0]["problems"]
    assert "how far training came is not known" in problem


def cut(path: str):
    def damage(run: Path) -> None:
        for file in run.glob(path):
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return damage


def fill(path: str, content: bytes):
    def damage(run: Path) -> None:
        for file in run.glob(path):
            file.write_bytes(content)

    return damage


def lose(path: str):
    def damage(run: Path) -> None:
        for file in list(run.glob(path)):
            shutil.rmtree(file) if file.is_dir() else file.unlink()

    return damage


def change_results(**changes):
    def damage(run: Path) -> None:
        write_results(run, [one | changes for one in read_results(run)])

    return damage


def log_is_a_folder(run: Path) -> None:
    lose("logs/topk-0/metrics.csv")(run)
    (run / "logs" / "topk-0" / "metrics.csv").mkdir()


DAMAGED = [
    (cut("results.jsonl"), "results.jsonl cannot be read"),
    (fill("results.jsonl", b"\xff\0"), "results.jsonl cannot be read"),
    (fill("results.jsonl", b"[" * 100_000), "results.jsonl cannot be read"),
    (fill("results.jsonl", b'{"name": "a"}\n'), "results.jsonl is not as a run writes it"),
    (change_results(metrics={"l0": 10**400}), "results.jsonl is not as a run writes it"),
    (change_results(metrics={"l0": True}), "results.jsonl is not as a run writes it"),
    (change_results(config={"class_path": 3}), "results.jsonl is not as a run writes it"),
    (change_results(reason=[3]), "results.jsonl is not as a run writes it"),
    (lose("results.jsonl"), "results.jsonl is missing"),
    (lose("saes"), "4 of 4 SAEs have no export in saes/: topk-0, relu-1, gated-2 and 1 more"),
    (lose("saes/topk-0"), "1 of 4 SAEs have no export in saes/: topk-0"),
    (lose("logs"), "4 of 4 SAEs have no logs/<name>/metrics.csv, so no curves"),
    (log_is_a_folder, "1 of 4 SAEs have no logs/<name>/metrics.csv"),
    (fill("config.yaml", b"a: ["), "config.yaml"),
    (fill("config.yaml", b"3"), "config.yaml holds a int"),
    (cut("logs/*/metrics.csv"), None),
    (fill("logs/*/metrics.csv", b"\0\xff,\n" * 99), None),
    (fill("logs/*/metrics.csv", b""), None),
    (fill("logs/*/metrics.csv", b"step,train/loss\n1," + b"9" * 200_000), None),
    (fill("saes/*/config.json", b"[]"), None),
    (fill("saes/*/config.json", b'{"d_sae": "x", "d_in": [], "source": 3, "training": 4}'), None),
    (fill("progress.json", b"{"), None),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGED, ids=[f"{i}-{said}"[:40] for i, (_, said) in enumerate(DAMAGED)])
def test_what_is_damaged_is_said_and_the_rest_shown(damage, said, tmp_path):
    run = invent(tmp_path / "run", 4)
    write_progress(
        run, **{one["name"]: {"state": "finished", "reason": None, "val": one["metrics"]} for one in read_results(run)}
    )
    (run / "config.yaml").write_text("{}")
    damage(run)
    data = page(run)
    problems = data["sources"][0]["problems"]
    assert [said in problem for problem in problems] == ([True] if said else [])
    assert [sae["names"][0] for sae in data["saes"]] == ["topk-0", "relu-1", "gated-2", "topk-3"]
    assert all(sae["state"] == "finished" and sae["metrics"]["fvu"] > 0 for sae in data["saes"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_whatever_is_damaged_there_is_a_page(seed, tmp_path):
    rng = random.Random(seed)
    run = invent(tmp_path / "run", 3)
    write_progress(
        run, **{one["name"]: {"state": "running", "reason": None, "val": one["metrics"]} for one in read_results(run)}
    )
    (run / "config.yaml").write_text(
        json.dumps({"model": {"saes": {"topk-0": {"class_path": "TopK"}}}, "data": {"init_args": {}}})
    )
    files = sorted(path for path in run.rglob("*") if path.is_file())
    for file in rng.sample(files, rng.randint(1, 4)):
        content = bytearray(file.read_bytes())
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(content))
            piece = rng.choice(
                [b"", b"\0", b"[", b"{}", b"null", b'"', b"1e999", b"-", b"NaN", b"\xff", b"9" * 400, b"true", b",", b"\n"]
            )
            content[at : at + rng.randint(0, 12)] = piece
        file.write_bytes(bytes(content))
    assert isinstance(page(run)["saes"], list)


def test_numbers_that_are_none_leave_gaps(tmp_path):
    odd = {"l0": math.inf, "fvu": math.nan, "dead": None, "cosine": -math.inf}
    rows = [
        row(0, random.Random(0), metrics=odd),
        row(1, random.Random(0), metrics={"l0": 0.0, "fvu": 0.3}),
        row(
            2,
            random.Random(0),
            metrics={"l0": 3.0, "fvu": -0.1},
            density={"lowest": -8, "per_decade": 0, "counts": [], "silent": 0},
        ),
        row(
            3,
            random.Random(0),
            metrics={"l0": 3.0, "fvu": 0.2},
            density={"counts": ["x"]},
            config={"class_path": "A", "init_args": {"k": "x"}},
        ),
    ]
    write_results(tmp_path / "run", rows)
    log = tmp_path / "run" / "logs" / "topk-0" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text("step,train/loss,train/l0\n1,nan,inf\n2,1e999,3\nx,1,1\n3,0.5\n")
    data = page(tmp_path / "run")
    first, *_, last = data["saes"]
    assert set(first["metrics"].values()) == {None}
    assert first["curve"] == {"step": [1, 2, 3], "loss": [None, None, 0.5], "l0": [None, 3, None], "fvu": [None] * 3}
    assert (last["density"], last["target"]) == (None, None)
    assert data["fronts"]["fvu"][0]["all"] == [2]
    assert data["sensitivity"]["panels"] == []


def test_names_that_lead_out_of_the_run_are_not_followed(tmp_path):
    outside = invent(tmp_path / "other", 1)
    for name in ("../../other/logs/topk-0", "..", "/", str(outside / "logs" / "topk-0"), ""):
        write_results(tmp_path / "run", [row(0, random.Random(0), name=name)])
        [sae] = page(tmp_path / "run")["saes"]
        assert (sae["names"], sae["curve"], sae["folder"]) == ([name], None, None)


def test_an_empty_run_has_a_page(tmp_path):
    write_results(tmp_path / "run", [])
    data = page(tmp_path / "run")
    assert (data["saes"], data["best"], data["fronts"], data["sources"][0]["states"]) == ([], [], {}, {})


def test_a_sweeps_damaged_and_missing_runs_are_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert saelight_("sweep", "expand", write_sweep(), "--max-saes", "2") == 0
    folder = Path("runs/small")
    invent(folder / "runs" / "group-000", 1)
    (folder / "runs" / "group-000" / "results.jsonl").write_text("{")
    events = [
        {"group": "group-001", "event": "finished"},
        {"group": "group-002", "event": "failed", "error": "out of memory"},
    ]
    (folder / "state.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    data = page(folder)
    problems = data["sources"][0]["problems"]
    assert any("group-000/results.jsonl cannot be read" in problem for problem in problems)
    assert any("group-001 is missing: nothing is known of its 2 SAEs but their state" in problem for problem in problems)
    states = {(sae["group"], sae["state"], sae["reason"]) for sae in data["saes"] if sae["group"] != "group-000"}
    assert states == {("group-001", "finished", None), ("group-002", "failed", "out of memory")}
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | {"name": "edited"}))
    with pytest.raises(UserError, match="was edited or is damaged"):
        page(folder)
