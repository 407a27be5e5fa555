"""`saelight latents collect` straight from a model: the bits that shards of the same text give, stopped and gone on with."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

import saelight
from saelight.convert.writing import write
from saelight.data.harvest import text_model
from saelight.data.harvest.harvester import harvest
from saelight.data.harvest.model_stream import ModelStream
from saelight.latents import collection
from tests.data.from_model import SETTINGS, batches, from_model, write_text
from tests.support import letter_models
from tests.support.commands import refused, saelight_

SAES = {"topk": saelight.TopK(d_sae=24, k=3), "relu": saelight.ReLU(d_sae=32, sparsity=0.1)}
HARVEST = {"hooks": ["layers.1"], "context": 64, "batch_size": 1, "device": "cpu", "max_tokens": 1300}
"""Its second group of windows, of 16, is not full."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return letter_models.llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "t", documents=60)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run's SAEs, of which nothing is known."""
    monkeypatch.chdir(tmp_path)
    return make_run(tmp_path / "run")


def make_run(run):
    for i, (name, config) in enumerate(SAES.items()):
        write(config.build(16, seed=i), run / "saes" / name)
    return run


def set_data(run, **data):
    (run / "config.yaml").write_text(json.dumps({"data": {"class_path": "ModelDataModule", "init_args": data}}))


def collect(path, *args):
    return saelight_("latents", "collect", str(path), *map(str, args))


def found(run):
    return {path.relative_to(run): path.read_bytes() for path in sorted(run.rglob("latents/*")) if path.suffix != ".json"}


def meta(run):
    return json.loads((run / "saes/topk/latents/latents.json").read_text())


def said_at_last(capsys, run, *args):
    """The error's line, behind what transformers shows of loading a model."""
    capsys.readouterr()
    assert collect(run, *args) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("saelight: error: ")
    return line


@pytest.fixture
def stopping(monkeypatch):
    """Ctrl-C after each piece, while the model runs for the next ones."""
    pieces = collection.pieces

    def piece_and_signal(*args):
        for piece in pieces(*args):
            yield piece
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(collection, "pieces", piece_and_signal)
        yield patch
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("rows", [1600, pytest.param(9000, marks=pytest.mark.slow)], ids=["of the text", "more than it"])
def test_a_runs_own_data_are_as_if_they_had_been_saved(rows, model, files, run, tmp_path, capsys):
    set_data(run, **SETTINGS | {"rows": rows, "model": model, "files": [files]})
    make_run(tmp_path / "stored")
    data = from_model(model, files, rows=rows, save_to=str(tmp_path / "shards"))
    if rows == 1600:
        batches(data, 16)
    else:
        with pytest.warns(UserWarning, match="it is read"):
            batches(data, 40)
    data.teardown("fit")
    assert collect(tmp_path / "stored", "--data", "shards") == 0
    assert collect(run) == 0
    assert found(run) == found(tmp_path / "stored")
    assert meta(run)["rows"] == meta(tmp_path / "stored")["rows"] <= rows
    assert meta(run)["data"]["hook"] == "layers.1"
    assert sorted(path.name for path in (run / "saes/topk").iterdir()) == sorted(
        path.name for path in (tmp_path / "stored/saes/topk").iterdir()
    )
    capsys.readouterr()
    assert collect(run) == 0
    assert "the latents of 2 SAEs are there already, of" in capsys.readouterr().out


@pytest.mark.parametrize("changed", [{}, {"max_tokens": None}, {"max_tokens": 300, "packed": True}], ids=str)
@pytest.mark.slow
def test_a_harvests_config_is_as_its_shards(changed, model, files, run, tmp_path, capsys):
    settings = {name: value for name, value in (HARVEST | changed).items() if value is not None}
    config = {"model": model, "files": [files], "out": "rows"} | settings
    (tmp_path / "harvest.yaml").write_text(json.dumps(config))
    assert collect(run, "--data", "harvest.yaml") == 0
    assert not (tmp_path / "rows").exists()
    made = found(run)
    harvest(**config)
    capsys.readouterr()
    assert collect(run, "--data", "harvest.yaml", "--fresh") == 0
    assert " of rows through 2 SAEs" in capsys.readouterr().out
    assert found(run) == made


@pytest.mark.parametrize("of_run", [pytest.param(True, marks=pytest.mark.slow), False], ids=["of a run", "of a harvest"])
def test_a_stop_changes_no_bit(of_run, model, files, run, tmp_path, stopping, capsys):
    """After any piece, and while the model runs for the next one."""
    again = make_run(tmp_path / "again")
    for folder in (run, again):
        set_data(folder, model=model, files=[files], **SETTINGS)
    config = HARVEST | {"model": model, "files": [files]}
    (tmp_path / "harvest.yaml").write_text(json.dumps(config))
    data = [] if of_run else ["--data", "harvest.yaml"]
    begun, make = [], ModelStream._make

    def noted(stream, at):
        begun.append(at.rows)
        return make(stream, at)

    stopping.setattr(ModelStream, "_make", noted)
    stops = 0
    while collect(run, *data) == 130:
        stops += 1
        assert "tokens, which are kept: the same command goes on" in capsys.readouterr().out
    assert stops >= 3
    # A harvest's limits are of its first 8,192 rows: fewer are made anew.
    assert (begun[-1] > 500) is of_run
    stopping.undo()
    assert collect(again, *data) == 0
    assert found(run) == found(again)
    assert [path for path in run.rglob("*") if ".collecting" in path.name or ".text" in path.name] == []


@pytest.mark.slow
def test_a_text_that_changed_between_is_not_gone_on_with(model, files, run, tmp_path, stopping, capsys):
    folder = tmp_path / "text"
    shutil.copytree(Path(files).parent, folder)
    stopping.setattr(text_model, "_DOCUMENTS", 1)
    set_data(run, model=model, files=[f"{folder}/*.txt"], **SETTINGS)
    assert collect(run) == 130
    (folder / "015.txt").write_text("another text")
    assert "the text is not what it was when the collection in" in said_at_last(capsys, run)
    place = next(run.rglob("place.json"))
    place.write_text(place.read_text()[:-9])
    assert "place.json is damaged (" in said_at_last(capsys, run)
    stopping.undo()
    assert collect(run, "--fresh") == 0
    fresh = found(run)
    assert collect(run, "--fresh") == 0
    assert found(run) == fresh


SPEC = {"model": "m", "files": ["f"], "hooks": ["layers.1"]}
FIT = {"class_path": "ModelDataModule", "init_args": SPEC | {"rows": 100}}
REFUSED = {
    "part": (SPEC | {"part": "1/2"}, "part is of a harvest that several processes write; drop it"),
    "a type": (SPEC | {"context": "wide"}, '"context": expected int, got wide'),
    "a word": (SPEC | {"dtype": "int8"}, "bfloat16"),
    "no model": ({"hooks": ["a"]}, "model"),
    "batches": (SPEC | {"batch_size": 0}, "batch_size must be at least 1, got 0"),
    "positions": (SPEC | {"skip_positions": 200}, "skip_positions 200 leaves nothing of windows of 128"),
    "no files": (SPEC, "f"),
    "no data": ({"data": {}}, "x.yaml names no data: give --data PATH"),
    "a list": ({"data": FIT | {"init_args": [1]}}, "x.yaml: init_args of data are settings by name"),
    "odd data": ({"data": FIT | {"class_path": "ModelDataModul"}}, "did you mean 'ModelDataModule'?"),
    "odd field": ({"data": {**FIT, "init_args": SPEC | {"row": 1}}}, "x.yaml: unknown key 'row'; did you mean 'rows'?"),
    "rows": ({"data": {**FIT, "init_args": SPEC | {"rows": 0}}}, "rows"),
    "two hooks": (SPEC | {"hooks": ["a", "b"]}, "x.yaml is of a, b, the SAE is of an unknown hook: leave one in hooks"),
}


@pytest.mark.parametrize(("config", "words"), REFUSED.values(), ids=REFUSED)
def test_configs_that_describe_no_rows(config, words, run, tmp_path, capsys):
    (tmp_path / "x.yaml").write_text(json.dumps(config))
    assert words in refused(capsys, "latents", "collect", str(run), "--data", "x.yaml")
    assert not list(run.rglob("*latents*"))


def test_a_text_without_rows(model, run, tmp_path, capsys):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "1.txt").write_text("a")
    config = {"model": model, "files": ["t/1.txt"], "hooks": ["layers.1"], "drop_tokens": [3], "context": 64}
    (tmp_path / "x.yaml").write_text(json.dumps(config))
    assert "the text holds no row that is kept; name other files" in said_at_last(capsys, run, "--data", "x.yaml")
    assert not list(run.rglob("*latents*"))
