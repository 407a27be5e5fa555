"""The quality benchmark compares at equal measured L0, searches until the best lies inside, and goes on where it was."""

import json
import math
import re
import shlex
import signal
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch

import saelight
from benchmarks.quality import __main__ as command
from benchmarks.quality import behaviour, ours, pages, prepare, store
from benchmarks.quality.data import Data
from benchmarks.quality.evaluate import evaluate
from benchmarks.quality.fronts import at, coefficient_for
from benchmarks.quality.grid import STARTS, Grid, first_rates, following
from benchmarks.quality.runs import Measured, Result, Run
from benchmarks.quality.store import Store
from benchmarks.quality.summary import best_peer, entries
from saelight.data.shards.writer import ShardWriter
from tests.support.activations import sparse_activations

BASE = Run("minilm", "rows", "sae_lens", "topk", 64, 1000, 100, 32, None, None, 0)


def result(run: Run, fvu: float, l0: float | None = None) -> Result:
    measured = Measured(fvu, run.l0 if l0 is None else l0)
    return Result(run, measured, measured, 0.0, 1.0, 1)


def searched(base: Run, grid: Grid, outcome) -> list[Result]:
    """All results of a search whose runs give what `outcome` says."""
    results: list[Result] = []
    while due := following(base, grid, results):
        assert len(results) < 50
        results.append(outcome(due[0]))
    return results


def test_fronts_are_compared_at_equal_l0():
    points = [Measured(0.4, 16), Measured(0.1, 36)]
    # Halfway in log L0, halfway in log FVU.
    assert at(points, 24) == (pytest.approx(0.2), True)
    assert at([*points, Measured(math.nan, 24)], 24) == (pytest.approx(0.2), True)
    assert at([Measured(0.4, 8), Measured(0.1, 32)], 16) == (pytest.approx(0.2), False)
    assert at(points, 36) == (0.1, True)
    fvu, exact = at(points, 40)
    assert fvu < 0.1
    assert not exact
    assert at(points, 80) is None


def test_a_penalty_is_found_on_the_line_through_what_was_tried():
    assert coefficient_for(32, [], 0.7) == 0.7
    assert coefficient_for(32, [(1.0, 64.0)], 0.7) == pytest.approx(2.0)
    power_law = [(c, 100 * c**-0.5) for c in (1.0, 2.0)]
    assert coefficient_for(25, power_law, 0.7) == pytest.approx(16.0)
    assert coefficient_for(1, power_law, 0.7) == 16.0  # no further beyond what was tried
    assert coefficient_for(32, [(1.0, 0.0)], 0.7) < 1.0


def test_rates_are_added_until_the_best_lies_inside():
    best = 0.015
    found = searched(BASE, Grid(seeds=1), lambda run: result(run, 0.1 + math.log(run.lr / best) ** 2))
    rates = [r.run.lr for r in found]
    assert sorted(rates[:3]) == first_rates(4e-3, 3)
    assert rates[3:] == [0.016, 0.032]
    endless = searched(BASE, Grid(seeds=1, extensions=2), lambda run: result(run, 1 / run.lr))
    assert len(endless) == 5


def test_the_next_l0_begins_around_the_best_rate_of_the_last():
    found = searched(BASE, Grid(seeds=1), lambda run: result(run, 0.1 + math.log(run.lr / 0.015) ** 2))
    due = following(replace(BASE, l0=16), Grid(seeds=1), found)
    assert [run.lr for run in due] == [0.016, 0.008, 0.032]
    started = [*found, result(due[0], 0.3)]
    assert following(replace(BASE, l0=16), Grid(seeds=1), started) == due[1:]


def test_every_rate_gets_as_many_weights_of_the_penalty():
    base = replace(BASE, variant="relu")
    found = searched(base, Grid(tries=3, seeds=2), lambda run: result(run, 0.1 + run.lr, 7 / run.coefficient**2))
    first, met = [r for r in found if r.run.seed == 0], [r for r in found if abs(r.held_out.l0 / 32 - 1) < 0.03]
    for lr in {r.run.lr for r in first}:
        assert 1 <= len([r for r in first if r.run.lr == lr]) <= 3
        assert any(r.run.lr == lr for r in met)
    (second,) = [r.run for r in found if r.run.seed == 1]
    assert second.lr == min(r.run.lr for r in first)
    never = searched(base, Grid(tries=2, seeds=1, extensions=0), lambda run: result(run, 0.1 + run.lr, 500))
    assert len(never) == 6


def test_results_are_kept_by_config_and_versions(tmp_path, monkeypatch):
    run = replace(BASE, library="saelight", lr=1e-3)
    Store(tmp_path).put([result(run, 0.25)])
    assert Store(tmp_path).results == {run: result(run, 0.25)}
    assert replace(run, seed=1) not in Store(tmp_path).results
    monkeypatch.setattr(store, "decided_by", lambda run: {"saelight": "other"})
    assert Store(tmp_path).results == {}


def test_code_is_told_from_what_is_said_about_it(tmp_path):
    path = tmp_path / "code.py"
    digests = []
    for text in ('def f():\n    """One."""\n    return 1\n', "def f():  # two\n    return 1\n", "def f():\n    return 2\n"):
        path.write_text(text)
        digests.append(store._digest([path]))
    assert digests[0] == digests[1] != digests[2]


def test_what_saelight_learns_is_told_from_how_it_is_written(monkeypatch):
    own = {v: replace(BASE, library="saelight", variant=v, lr=1e-3) for v in ("gated", "topk")}
    before = {v: behaviour.digest(run) for v, run in own.items()}
    assert behaviour.digest(replace(own["topk"], lr=None)) != before["topk"]
    behaviour._learnt.cache_clear()
    monkeypatch.setitem(ours.PENALISED, "gated", partial(saelight.Gated, encoder_scale=0.9))
    try:
        after = {v: behaviour.digest(run) for v, run in own.items()}
    finally:
        behaviour._learnt.cache_clear()
    assert after["gated"] != before["gated"]
    assert after["topk"] == before["topk"]


class TwoLatents:
    """Reads a row's first two values where they are above 1."""

    def encode(self, x_BD):
        return x_BD[:, :2] * (x_BD[:, :2] > 1)

    def decode(self, f_BF):
        return torch.cat([f_BF, torch.zeros(len(f_BF), 1)], 1)


def test_the_evaluator_by_hand():
    rows_ND = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0], [3.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    measured, never = evaluate(TwoLatents(), rows_ND[:3].split(2), measured_rows=3)
    # The error is the second row's 1; the mean row is (5/3, 0, 1/3).
    assert measured == Measured(pytest.approx(1 / (14 - 3 * (25 / 9 + 1 / 9))), pytest.approx(2 / 3))
    assert never == 0.5
    assert evaluate(TwoLatents(), rows_ND.split(2), measured_rows=3) == (measured, 0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Data:
    folder = tmp_path_factory.mktemp("quality")
    for name, rows, seed in (("rows", 4600, 0), ("other", 600, 1)):
        x_ND = sparse_activations(rows, seed=seed) + 3
        ids = torch.arange(rows) // 50
        with ShardWriter(folder / name, model="m", hook="h", dtype="float32", d_in=16) as writer:
            writer.append(x_ND, document_ids=ids)
    return Data("tiny", folder / "rows", folder / "other", tokens=3072, expansion=2, held_out_rows=1000, measured_rows=500)


def test_all_libraries_get_the_rows_that_saelight_learns_from(data):
    batches = list(islice(data.training(256, seed=3), 4))
    own = list(islice(data.module(256, seed=3).train_dataloader(), 4))
    assert torch.equal(torch.cat(batches), torch.cat(own))
    assert sum(map(len, data.training(256, seed=3))) == 3072
    assert sum(map(len, data.held_out())) == 1000
    assert sum(map(len, data.other())) == 500


@pytest.mark.slow
def test_ours_from_rows_to_the_page(data, tmp_path, monkeypatch):
    options = ["--variant", "topk", "relu", "--library", "saelight", "--l0", "8", "--batch", "256", "--extensions", "0"]
    given = command.parsed(options)
    kept = Store(tmp_path / "results")
    assert not command.search(data, given, kept, stop_at=-math.inf)
    assert kept.results == {}
    assert command.search(data, given, kept, stop_at=math.inf)
    results = list(kept.results.values())
    first = {lr for variant in ("topk", "relu") for lr in first_rates(STARTS["saelight"][variant].lr, 3)}
    assert {r.run.lr for r in results} == {None, *first}
    assert {r.run.seed for r in results} == {0, 1}
    for r in results:
        assert 0 < r.held_out.fvu < 1.2
        assert r.together >= 1
    again = Store(tmp_path / "results")
    assert command.next_runs(command.bases(data, given), Grid(extensions=0), list(again.results.values())) == []
    # The same config alone: bit for bit the same.
    one = next(r for r in results if r.run.variant == "topk" and r.run.seed == 0)
    (alone,) = ours.train([one.run], data)
    assert alone.held_out == one.held_out

    peer = [replace(r, run=replace(r.run, library="sae_lens")) for r in results if r.run.lr is not None]
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    monkeypatch.setattr(pages, "PAGE", tmp_path / "quality.md")
    monkeypatch.setattr(pages, "versions", lambda library: {library: "1.0"})
    (tmp_path / "images").mkdir()
    pages.PAGE.write_text("before\n<!-- begin quality -->\nold\n<!-- end quality -->\nafter\n")
    pages.write(results + peer, "--l0 8")
    text = pages.PAGE.read_text()
    assert "old" not in text
    assert text.count("**1.000**") == 2
    image = tmp_path / "images" / "quality-tiny.png"
    assert not image.exists()
    denser = [replace(r, run=replace(r.run, l0=16), held_out=replace(r.held_out, l0=16)) for r in results]
    pages.write(results + peer + denser, "")
    assert image.stat().st_size > 10_000
    found = entries(results + peer, "topk", 8)
    assert best_peer(found) == "sae_lens"
    assert found["saelight"].seeds == 2


def test_ctrl_c_leaves_nothing_half_written(data, tmp_path, monkeypatch):
    def press(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ours._Bar, "on_train_batch_end", press)
    given = command.parsed(["--variant", "topk", "--library", "saelight", "--l0", "8", "--batch", "256"])
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            command.search(data, given, Store(tmp_path), stop_at=math.inf)
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning turns it off
    assert list(tmp_path.iterdir()) == []


def test_pages_of_html_become_text():
    page = (
        "<html><head><title>no</title></head><body><h1>A  title</h1>\n<p>one <b>two</b></p><script>x()</script>three</body>"
    )
    assert prepare.as_text(page) == "A title\none two\nthree"


def test_what_is_missing_is_said_with_its_remedy(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prepare, "FAQ", "/nowhere/*.html")
    with pytest.raises(saelight.UserError, match=r"apt-get install anarchism.*--text"):
        prepare.prepare("minilm", None, 1000, 100, quick=False)


def test_every_command_of_the_page_parses():
    page = (Path(__file__).parents[1] / "docs" / "quality.md").read_text()
    commands = re.findall(r"python -m benchmarks\.quality ([^`\n]*)", page)
    assert commands
    for words in commands:
        assert command.parsed(shlex.split(words)).data


def test_stored_results_are_plain_json(tmp_path):
    Store(tmp_path).put([result(replace(BASE, library="saelight", lr=1e-3), 0.25)])
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text())["result"]["held_out"] == {"fvu": 0.25, "l0": 32}
