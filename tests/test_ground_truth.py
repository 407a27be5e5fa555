"""The ground-truth benchmark at a size of seconds."""

from dataclasses import replace

import pytest
import torch

from benchmarks import ground_truth
from benchmarks.ground_truth import SIZES, Size, benchmark, main, variants
from benchmarks.pages import insert
from benchmarks.recovery import BARS, LOW_BARS, RANDOM, TRUE, Row, controls, measure, shortcomings, table

TINY = Size(
    {"d_in": 24, "n_features": 32, "mean_l0": 2.0},
    d_sae=32,
    batch_size=128,
    tokens=100_000,
)
PERFECT = Row(2, 0, 1, 1, 1, 1, 1, 0, 0)


def test_every_variant_has_a_row_of_numbers(capsys):
    rows, short = benchmark(TINY, tokens=1280, val_rows=600)
    assert list(rows) == [RANDOM, TRUE, *variants(TINY)]
    assert torch.tensor(list(rows.values())).isfinite().all()
    assert short  # ten steps teach nobody
    assert table(rows).count("\n") == len(rows) + 1


def test_trained_saes_beat_a_random_dictionary_by_far():
    names = ["Gated", "TopK", "AbsTopK"]
    rows, short = benchmark(TINY, only=names, val_rows=2000)
    assert not short
    assert all(rows[name].f1 > 0.6 and rows[name].mcc > 0.9 for name in names)
    assert rows[TRUE].mcc == pytest.approx(1)
    assert rows[RANDOM].mcc < 0.6


def test_the_same_whatever_the_batch_it_is_measured_in():
    data = TINY.datamodule(val_rows=700)
    sae = controls(data, TINY.d_sae, TINY.k, torch.device("cpu"))[RANDOM]
    assert measure(sae, data, batch=64) == pytest.approx(measure(sae, data), rel=1e-6)


def test_a_narrow_sae_is_asked_for_the_most_frequent_features_only():
    narrow = replace(TINY, d_sae=8)
    assert narrow.k == round(narrow.datamodule().opened.rows.frequencies[:8].sum()) < TINY.k
    row = measure(controls(narrow.datamodule(), 8, narrow.k, torch.device("cpu"))[TRUE], narrow.datamodule(val_rows=700))
    assert row.mmcs == pytest.approx(1)
    assert row.recall > 0.5


@pytest.mark.parametrize("bars", [BARS, LOW_BARS])
def test_what_is_no_better_than_chance_falls_short_of_every_bar(bars):
    chance = Row(2, 0.7, 0.2, 0.2, 0.2, 0.4, 0.4, 0, 0)
    assert len(shortcomings(chance, chance, bars)) == len(bars)
    assert shortcomings(PERFECT, chance, bars) == []
    lost = PERFECT._replace(mcc=float("nan"), fvu=float("nan"))
    assert [line.split()[0] for line in shortcomings(lost, chance, bars)] == ["mcc", "fvu"]


def test_a_table_goes_between_its_markers(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- begin tiny -->\nold\n<!-- end tiny -->\nafter <!-- begin other --><!-- end other -->\n")
    monkeypatch.setitem(SIZES, "tiny", TINY)
    monkeypatch.setattr(ground_truth, "PAGE", page)
    assert main(["--size", "tiny", "--tokens", "256", "--only", "TopK", "--write"]) == 1
    shown = capsys.readouterr()
    assert "does not beat a random dictionary by far: TopK: mcc" in shown.err
    text = page.read_text()
    command = "python -m benchmarks.ground_truth --size tiny --tokens 256 --only TopK"
    assert text.startswith(f"before\n<!-- begin tiny -->\n`{command}`: 256 tokens, seed 0")
    assert text.endswith("\n<!-- end tiny -->\nafter <!-- begin other --><!-- end other -->\n")
    assert "old" not in text
    assert text.count("| TopK |") == shown.out.count("| TopK |") == 1
    with pytest.raises(ValueError, match="no <!-- begin none"):
        insert(text, "none", "")


def test_a_variant_that_does_not_exist_is_said(capsys):
    with pytest.raises(SystemExit):
        main(["--only", "TopK", "Topk"])
    assert "no variant Topk; there are: ReLU; " in capsys.readouterr().err


def test_the_page_has_a_place_for_every_size():
    page = ground_truth.PAGE.read_text()
    for name in SIZES:
        insert(page, name, "")
