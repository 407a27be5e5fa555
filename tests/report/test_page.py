"""The page of real runs and sweeps, and what is always true of the file."""

import base64
import hashlib
import random
import shutil
from pathlib import Path

import pytest

from saelight.report.page import write_report
from saelight.report.run_saes import saes_of
from saelight.run import evaluation_file
from tests.report.invented import Parsed, data_of, invent, row, write_results
from tests.support.commands import CONFIG, refused, saelight_
from tests.support.commands import write as write_config
from tests.support.import_graph import packages_loaded
from tests.support.sweeps import write as write_sweep


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run and a sweep of one group that were really trained."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert saelight_("fit", "--config", write_config(CONFIG), "--trainer.log_every_n_steps", "1") == 0
        assert saelight_("sweep", "expand", write_sweep()) == 0
        shutil.copytree("runs/small", "runs/waiting")
        group = Path("runs/small/groups/group-000.yaml")
        assert saelight_("fit", "--config", str(group), "--trainer.folder", "runs/small/runs/group-000") == 0
    return folder


def test_the_page_of_a_run_has_all_that_the_run_knows(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    assert saelight_("report", "runs/cfg") == 0
    assert capsys.readouterr().out == "runs/cfg/report.html: 2 SAEs\n"
    data = data_of(Path("runs/cfg/report.html"))
    [source] = data["sources"]
    assert source["kind"] == "run"
    assert source["about"] == {"model": "synthetic", "d_in": "8"}
    assert (source["states"], source["problems"]) == ({"finished": 2}, [])
    relu, topk = data["saes"]
    assert (relu["variant"], topk["variant"], topk["target"], topk["batch"]) == ("ReLU", "TopK", 4, 100)
    for sae in (relu, topk):
        assert sae["d_sae"] == 16
        assert sae["curve"]["step"] == list(range(1, 11))
        assert all(len(values) == 10 for values in sae["curve"].values())
        assert sum(sae["density"]["counts"]) + sae["density"]["silent"] == 16
        assert sae["metrics"]["fvu"] > 0
        assert sae["seconds"] > 0
        assert Path(sae["folder"], "sae.safetensors").is_file()
    assert sum(topk["density"]["counts"]) > 0
    assert 0 in data["fronts"]["fvu"][0]["variants"]["ReLU"]
    assert data["winners"] == [min((0, 1), key=lambda i: data["saes"][i]["metrics"]["fvu"])]
    assert {i for best in data["best"] for i in best["ids"]} <= {0, 1}


def test_the_page_of_a_sweep_has_its_points_settings_and_what_waits(trained, monkeypatch):
    monkeypatch.chdir(trained)
    assert saelight_("report", "runs/small", "--compare", "runs/waiting", "--out", "new/both.html") == 0
    data = data_of(Path("new/both.html"))
    assert [source["states"] for source in data["sources"]] == [{"finished": 6}, {"waiting": 6}]
    assert [source["name"] for source in data["sources"]] == ["small", "small"]
    assert all(source["problems"] == [] for source in data["sources"])
    first, last = data["saes"][0], data["saes"][-1]
    assert first["settings"]["sae.lr"] == "0.001"
    assert (first["lr"], first["batch"], first["group"]) == (0.001, 100, "group-000")
    assert last["source"] == 1
    assert data["winners"][1] is None
    assert (last["metrics"], last["curve"], last["density"], last["folder"]) == ({}, None, None, None)
    assert all(ids[1] is None for ids in (best["ids"] for best in data["best"]))


def test_the_file_is_whole_and_may_fetch_nothing(tmp_path):
    write_report([invent(tmp_path / "run", 3)], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    parsed = Parsed(page)
    [policy] = [tag["content"] for name, tag in parsed.tags if name == "meta" and "http-equiv" in tag]
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy
    for script in parsed.scripts[1:]:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert len(parsed.scripts) == 3
    assert "Licensed under the MIT license" in parsed.scripts[1][:300]
    assert not [tag for name, tag in parsed.tags if {"src", "srcset", "action"} & tag.keys()]
    assert [tag["href"] for name, tag in parsed.tags if "href" in tag] == ["data:,"]
    assert "{{" not in page.replace(parsed.scripts[1], "")


NASTY = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "a&lt;b",
    "'\"`${1}",
    "é\u2028\u2029\0",
]


def test_text_of_a_run_is_never_read_as_html(tmp_path):
    plain, nasty = tmp_path / "plain", tmp_path / "<b>&</b>"
    write_report([invent(plain, 1)], tmp_path / "plain.html")
    rows = [
        row(
            0,
            random.Random(0),
            name=name,
            state=name,
            reason=name,
            config={"class_path": f"a.{name}", "init_args": {name: name}},
        )
        for name in NASTY
    ]
    write_results(nasty, [one | {"metrics": one["metrics"] | {one["name"]: 1.0}} for one in rows])
    write_report([nasty], tmp_path / "nasty.html")
    tags = [[name for name, _ in Parsed((tmp_path / f"{one}.html").read_text()).tags] for one in ("plain", "nasty")]
    assert tags[0] == tags[1]
    saes = data_of(tmp_path / "nasty.html")["saes"]
    assert [(sae["names"][0], sae["state"], sae["reason"]) for sae in saes] == [(name, name, name) for name in NASTY]
    assert all(sae["fields"] == {name: name} for sae, name in zip(saes, NASTY, strict=True))


def test_912_saes_are_a_small_page(tmp_path):
    write_report([invent(tmp_path / "run", 912, logged=70)], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 8e6
    data = data_of(tmp_path / "report.html")
    assert len(data["saes"]) == 912
    assert 24 <= max(len(sae["curve"]["step"]) for sae in data["saes"]) <= 65
    [panel] = data["sensitivity"]["panels"]
    assert panel["setting"] == "sae.lr"
    assert len(panel["points"]) == 912


REFUSED = [
    (["nowhere"], "nowhere does not exist: name the folder of a run or a sweep"),
    (["file"], "file is a file: name the folder"),
    (["."], ". holds runs and is none: name one, as broken"),
    (["empty"], "empty is no run's folder (no progress.json"),
    (["broken"], "broken/index.json cannot be read"),
    (["run", "--compare", "empty"], "empty is no run's folder"),
    (["run", "--compare", "run/../run"], "run is compared with itself: name another folder after --compare"),
    (["run", "--out", "empty"], "empty is a folder: name the page's file, as --out empty/report.html"),
    (["run", "--out", "run/results.jsonl"], "run/results.jsonl does not end in .html"),
    (["run", "--out", "file/x.html"], "file: File exists: give another place"),
    ([], "required: RUN|SWEEP (see saelight report --help)"),
    (["run\0"], "holds a NUL, which is in no path"),
    (["loop"], "loop does not exist"),
    (["n" * 5000], "File name too long"),
    (["run", "--oute", "x.html"], "unrecognized arguments: --oute x.html"),
]


@pytest.mark.parametrize(("args", "line"), REFUSED, ids=[" ".join(args)[:40] or "nothing" for args, _ in REFUSED])
def test_what_is_neither_is_refused_in_one_line(args, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    invent(Path("run"), 1)
    before = Path("run/results.jsonl").read_bytes()
    Path("file").write_text("")
    Path("loop").symlink_to("loop")
    for name in ("empty", "broken"):
        Path(name).mkdir()
    Path("broken/index.json").write_text("{")
    assert line in refused(capsys, "report", *args)
    assert Path("run/results.jsonl").read_bytes() == before
    assert not list(Path().rglob("*.html*"))


def test_a_report_needs_neither_torch_nor_numpy():
    assert packages_loaded("report.page") & {"torch", "lightning", "numpy", "matplotlib"} == set()
    assert packages_loaded("cli.report_command") & {"torch", "lightning"} == set()


def test_an_evaluation_is_known_of_saes_whose_run_left_no_results(tmp_path):
    run = invent(tmp_path / "one", 2)
    (run / "results.jsonl").unlink()
    evaluation_file.write(run / "saes/topk-0/evaluation.json", {"metrics": {"loss_recovered": 0.5, "l0": 9.0}})
    metrics = {row.name: row.metrics for row in saes_of(run, [])}
    assert metrics == {"relu-1": {}, "topk-0": {"loss_recovered": 0.5}}
