"""`saelight latents collect`: from runs and rows to folders of latents, stopped and gone on with, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import saelight
from saelight.data.shards.reader import ShardedRows
from saelight.errors import UserError
from saelight.latents import collected_saes, collection
from saelight.latents import latents_format as layout
from saelight.latents.collection import Settings, collect
from tests.latents.shown_saes import D_IN, ROWS, SAES, columns, make_run, make_shards
from tests.support.commands import refused, saelight_


@pytest.fixture
def run(made, tmp_path):
    """The same, of which nothing was collected."""
    copy = shutil.copytree(made, tmp_path / "run")
    for name in SAES:
        shutil.rmtree(copy / "saes" / name / layout.FOLDER)
    return copy


def files(run):
    return {path.relative_to(run): path.read_bytes() for path in sorted(run.rglob("latents/*")) if path.suffix != ".json"}


@pytest.mark.parametrize("name", SAES)
def test_counts_and_contexts_are_those_of_the_rows(made, name):
    latents = saelight.latents.read(made / "saes" / name)
    rows, sae = ShardedRows(made.parent / "shards"), saelight.load(made / "saes" / name)
    x = torch.empty(ROWS, D_IN)
    rows.read(0, x)
    f = sae.encode(x).numpy()
    known = {key: column.numpy() for key, column in columns().items()}
    assert (latents.name, len(latents), latents.rows) == (name, sae.d_sae, ROWS)
    np.testing.assert_array_equal(latents.column("fired"), (f != 0).sum(0))
    np.testing.assert_allclose(latents.maxima, np.abs(f).max(0), rtol=1e-5)
    for latent in latents:
        assert sum(count for _, count in latent.histogram) == latent.fired
        assert latent.mean == pytest.approx(np.abs(f[:, latent.index]).sum() / max(1, latent.fired), rel=1e-5)
        for context in latent.top:
            assert context.value == pytest.approx(f[context.row, latent.index], rel=1e-5)
            assert context.position == known["positions"][context.row]
            assert context.document == known["document_ids"][context.row]
            first = context.row - context.peak
            at = range(first, first + len(context.tokens))
            assert [token.id for token in context.tokens] == known["token_ids"][at].tolist()
            steps = np.diff(known["positions"][at])
            assert (steps > 0).all()
            assert len(set(known["document_ids"][at])) == 1
            assert [token.after_gap for token in context.tokens] == [False, *(steps != 1)]
            same = np.sign(f[at, latent.index]) == np.sign(context.value)
            wanted = np.where(same, f[at, latent.index], 0)
            np.testing.assert_allclose([t.activation for t in context.tokens], wanted, atol=abs(context.value) / 255)
        starts = {(context.document, context.row - context.position) for context in latent.top}
        assert len(starts) == len(latent.top)


def test_neighbours_are_the_nearest_rows_of_the_decoders(made):
    all_ = {name: saelight.load(made / "saes" / name).W_dec for name in SAES}
    unit = {name: W / W.norm(dim=1, keepdim=True) for name, W in all_.items()}
    latents = saelight.latents.read(made / "saes/topk")
    for latent in latents:
        cosines = unit["topk"][latent.index] @ unit["topk"].T
        cosines[latent.index] = -2
        best = cosines.topk(layout.NEIGHBOURS)
        assert [one.latent for one in latent.near] == best.indices.tolist()
        assert [one.cosine for one in latent.near] == pytest.approx(best.values.tolist(), abs=1e-6)
        found = {one.sae: (one.latent, one.cosine) for one in latent.across}
        for other in ("wide", "signed"):
            cosine, nearest = (unit["topk"][latent.index] @ unit[other].T).max(0)
            assert found[other] == (int(nearest), pytest.approx(float(cosine), abs=1e-6))


def test_a_stop_at_any_piece_changes_no_bit(made, run, monkeypatch, capsys):
    """Ctrl-C after every piece, and once a kill between two SAEs' states."""
    pieces = collection.pieces

    def stopping(*args):
        for piece in pieces(*args):
            yield piece
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(collection, "pieces", stopping)
            older = {}
            for i in range(3):
                assert saelight_("latents", "collect", str(run)) == 130
                if i == 0:
                    older = {path: path.read_bytes() for path in run.glob("saes/wide/*.collecting")}
        for path, content in older.items():
            path.write_bytes(content)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "stopped at 578 of 1,500 tokens, which are kept" in capsys.readouterr().out
    assert saelight_("latents", "collect", str(run)) == 0
    assert files(run) == files(made)
    assert not list(run.rglob("*.collecting"))


SAVES_ALWAYS = """
import sys
from saelight.cli.main import main
from saelight.latents import collection

collection._SAVE_EVERY, collection._MOST = 0, 300
sys.exit(main(["latents", "collect", {!r}]))
"""


@pytest.mark.slow
def test_a_kill_changes_no_bit(tmp_path):
    rows = 60_000
    cycle = columns()
    repeated = {
        name: torch.cat([c + (i * (int(c.max()) + 1) if name == "document_ids" else 0) for i in range(300)])[:rows]
        for name, c in cycle.items()
    }
    data = make_shards(tmp_path / "shards", rows, **repeated)
    runs = [make_run(tmp_path / name, data) for name in ("killed", "whole")]
    code = SAVES_ALWAYS.format(str(runs[0]))

    def saved():
        return {path.stat().st_mtime_ns for path in runs[0].glob("saes/*/*.collecting")}

    for _ in range(3):
        before = max(saved(), default=0)
        process = subprocess.Popen([sys.executable, "-c", code])
        while process.poll() is None and max(saved(), default=0) == before:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert saelight_("latents", "collect", str(runs[0])) == 0
    assert saelight_("latents", "collect", str(runs[1])) == 0
    assert files(runs[0]) == files(runs[1])


def test_without_token_ids_the_rest_is_there(run, tmp_path, capsys):
    data = make_shards(tmp_path / "bare")
    assert saelight_("latents", "collect", str(run / "saes/topk"), "--data", str(data)) == 0
    out = capsys.readouterr().out
    assert "bare has no token ids: densities, histograms" in out
    latents = saelight.latents.read(run / "saes/topk")
    assert not latents.has_tokens
    latent = latents[int(latents.densities.argmax())]
    assert latent.fired > 0
    assert latent.near
    assert latent.together
    assert not latent.tokens
    assert len(latent.top) == layout.TOP
    assert [token.text for token in latent.top[0].tokens] == [""]
    assert saelight_("latents", "show", str(run / "saes/topk"), str(latent.index)) == 0
    assert f"row {latent.top[0].row}" in capsys.readouterr().out
    line = refused(capsys, "latents", "show", str(run / "saes/topk"), "--search", "x")
    assert "has no texts of tokens to search" in line


def test_a_models_rows_need_not_be_stored(tmp_path):
    data = {"class_path": "SyntheticDataModule", "init_args": {"d_in": D_IN, "rows": 700, "val_rows": 100}}
    run = make_run(tmp_path / "run", tmp_path)
    (run / "config.yaml").write_text(json.dumps({"data": data}))
    (line,) = collect([run / "saes/topk"], Settings(tokens=500))
    assert line.startswith("500 tokens of SyntheticDataModule through topk at ")
    assert saelight.latents.read(run / "saes/topk").rows == 500


def test_runs_of_other_rows_are_shown_their_own(tmp_path):
    for seed in (1, 2):
        fields = {"d_in": D_IN, "rows": 300, "val_rows": 0, "seed": seed}
        run = make_run(tmp_path / f"run-{seed}", tmp_path)
        (run / "config.yaml").write_text(json.dumps({"data": {"class_path": "SyntheticDataModule", "init_args": fields}}))
    collect([tmp_path / "run-1/saes/topk", tmp_path / "run-2/saes/topk"])
    one, two = (saelight.latents.read(tmp_path / f"run-{seed}/saes/topk") for seed in (1, 2))
    assert one.meta["data"]["fingerprint"] != two.meta["data"]["fingerprint"]
    assert (one.maxima != two.maxima).any()


REFUSED = {
    "no harvest": (["run", "--data", "no.yaml"], "no.yaml is no config of a fit (data) or of a harvest"),
    "two hooks": (["run", "--data", "two.yaml"], "two.yaml is of a, b, the SAE is of an unknown hook"),
    "no such setting": (["run", "--data", "odd.yaml"], "odd.yaml: unknown key 'odd'"),
    "nothing": (["nowhere"], "nowhere holds no trained SAE: there is no such file or folder"),
    "narrow": (["run", "--data", "narrow"], "signed takes 8 numbers, a row of narrow has 5: give --data of its own hook"),
    "no data": (["run", "--data", "gone"], "gone"),
    "tokens": (["run", "--tokens", "0"], "expected a whole number of at least 1"),
}


@pytest.mark.parametrize(("args", "words"), REFUSED.values(), ids=REFUSED)
def test_refusals(args, words, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_shards(tmp_path / "narrow", d_in=5)
    harvest = {"model": "m", "files": ["f"], "hooks": ["a"], "out": "out"}
    for name, content in {"no": {"a": 1}, "two": harvest | {"hooks": ["a", "b"]}, "odd": harvest | {"odd": 1}}.items():
        Path(f"{name}.yaml").write_text(json.dumps(content))
    assert words in refused(capsys, "latents", "collect", *args)
    assert not list(run.rglob("*latents*"))


def test_a_run_whose_data_have_moved(run, capsys):
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("shards", "moved"))
    assert "if they have moved, give --data PATH" in refused(capsys, "latents", "collect", str(run))
    (run / "config.yaml").unlink()
    assert "nothing says what " in (line := refused(capsys, "latents", "collect", str(run)))
    assert "give --data PATH" in line


def test_what_is_there_is_replaced_only_when_that_is_asked_for(made, capsys):
    before = files(made)
    assert "--fresh collects them anew" in refused(capsys, "latents", "collect", str(made), "--tokens", "100")
    assert files(made) == before
    assert saelight_("latents", "collect", str(made)) == 0
    assert "the latents of 3 SAEs are there already, of the same 1,500 tokens" in capsys.readouterr().out
    assert saelight_("latents", "collect", str(made), "--fresh") == 0
    assert files(made) == before


def test_an_end_between_two_saes_files_loses_none(made, run, monkeypatch):
    finish, done = collection.finish, []

    def stopping(subject, *args):
        if done:
            raise ConnectionAbortedError
        done.append(subject.name)
        return finish(subject, *args)

    with monkeypatch.context() as patch:
        patch.setattr(collection, "finish", stopping)
        with pytest.raises(ConnectionAbortedError):
            collect([run])
    assert len(list(run.rglob("latents"))) == 1
    collect([run])
    assert files(run) == files(made)


def test_saes_that_have_no_room_together_are_looked_at_one_after_the_other(made, run, monkeypatch):
    monkeypatch.setattr(collected_saes, "_AT_ONCE", 20)
    assert len(collect([run])) == 1 + 3
    for name in SAES:
        one, other = (saelight.latents.read(folder / "saes" / name) for folder in (made, run))
        assert other.meta["others"] == []
        assert (one.column("top.rows") == other.column("top.rows")).all()


def test_a_stopped_one_goes_on_as_it_began(run, monkeypatch, capsys):
    def stopped(*_):
        raise ConnectionAbortedError

    with monkeypatch.context() as patch:
        patch.setattr(collection, "finish", stopped)
        with pytest.raises(ConnectionAbortedError):
            collect([run], Settings(tokens=600))
    capsys.readouterr()
    line = refused(capsys, "latents", "collect", str(run))
    assert "with another tokens: repeat that command, or --fresh" in line
    state = next(run.glob("saes/signed/*.collecting"))
    state.write_bytes(state.read_bytes()[:-100])
    assert f"{state} is damaged" in refused(capsys, "latents", "collect", str(run), "--tokens", "600")
    assert saelight_("latents", "collect", str(run), "--tokens", "600", "--fresh") == 0


def _cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "tensors cut": (layout.TENSORS, _cut, "is damaged ("),
    "a bit flipped": (layout.TENSORS, _flip, "latents.safetensors is not as it was written"),
    "tensors gone": (layout.TENSORS, lambda path: path.unlink(), "is damaged ("),
    "meta cut": (layout.META, _cut, "latents.json is damaged ("),
    "meta empty": (layout.META, lambda path: path.write_text("{}"), "latents.json is damaged ("),
    "newer": (layout.META, lambda path: path.write_text('{"version": 2}'), "is of a newer saelight (version 2"),
    "meta gone": (layout.META, lambda path: path.unlink(), "nothing is known of latents"),
}


@pytest.mark.parametrize(("name", "damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_folder_is_one_line(name, damage, words, made, tmp_path, capsys):
    sae = shutil.copytree(made / "saes/topk", tmp_path / "topk")
    damage(sae / layout.FOLDER / name)
    assert words in refused(capsys, "latents", "show", str(sae))


@pytest.mark.parametrize("name", ["top.tokens", "across.saes"])
def test_tensors_of_another_shape_are_no_latents(name, made, tmp_path):
    sae = shutil.copytree(made / "saes/topk", tmp_path / "topk")
    path = sae / layout.FOLDER / layout.TENSORS
    arrays = load_file(path)
    save_file(arrays | {name: arrays[name][:-1]}, path)
    with pytest.raises(UserError, match=name):
        saelight.latents.read(sae, check=False)


def test_numbers_that_no_latent_has(made, capsys):
    latents = saelight.latents.read(made / "saes/topk")
    assert "topk has no latent 16: give 0 to 15" in refused(capsys, "latents", "show", str(made / "saes/topk"), "16")
    with pytest.raises(IndexError):
        latents[-1]
    assert [latent.index for latent in latents[14:20]] == [14, 15]
    assert "holds latents of 3 SAEs: name one, as" in refused(capsys, "latents", "show", str(made))
