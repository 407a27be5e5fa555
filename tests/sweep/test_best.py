"""Which SAEs are best, whose sweep is better, and the table of all results in Python."""

import random

import pytest

import saelight
from saelight.errors import UserError
from saelight.sweep.show.best import best, compare
from tests.support.commands import refused, saelight_
from tests.support.sweeps import write
from tests.sweep.rows import make_row


def row(i: int, variant: str, l0: float, fvu: float, **changes):
    made = make_row(i, {"sae.class_path": variant}, random.Random(0), metrics={"l0": l0, "fvu": fvu, "mmcs": l0 / 100})
    return made | {"name": f"{variant}-{l0:g}"} | changes


ROWS = [
    row(0, "TopK", 16, 0.4),
    row(1, "TopK", 33, 0.2),
    row(2, "TopK", 64, 0.1),
    row(3, "TopK", 65, 0.3),
    row(4, "ReLU", 30, 0.3),
    row(5, "ReLU", 20, 0.01, state="retired"),
]


def names(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines()[1:]]


def test_the_best_of_each_variant_at_an_l0():
    assert names(best(ROWS, at_l0=32)) == ["TopK-33", "ReLU-30"]
    assert names(best(ROWS, at_l0=20)) == ["TopK-16"]
    assert names(best(ROWS, metric="mmcs", at_l0=100)) == ["TopK-65", "ReLU-30"]
    # Without an L0: each variant's front.
    assert names(best(ROWS)) == ["TopK-64", "TopK-33", "ReLU-30", "TopK-16"]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (ROWS, {"at_l0": 5}, "no finished SAE has an L0 of at most 5; the sparsest has 16.0"),
        (ROWS, {"metric": "fvvu"}, "no metric 'fvvu'; did you mean 'fvu'"),
        (ROWS[5:], {}, "none of the 1 SAEs has finished"),
    ],
)
def test_what_cannot_be_said(rows, settings, message):
    with pytest.raises(UserError, match=message):
        best(rows, **settings)


def test_sweeps_are_compared_at_the_same_l0():
    other = [row(0, "TopK", 20, 0.3), row(1, "TopK", 50, 0.12), row(2, "Gated", 30, 0.1)]
    lines = [line.split() for line in compare(ROWS, other, ("a", "b")).splitlines()]
    assert lines[0] == ["variant", "L0", "FVU", "of", "a", "FVU", "of", "b", "ratio"]
    # L0s of both: those of either front at which the other one was measured or lies between two points.
    assert [line[1] for line in lines[1:]] == ["20.0", "33.0", "50.0", "mean"]
    for line in lines[1:-1]:
        assert float(line[4]) == pytest.approx(float(line[3]) / float(line[2]), abs=2e-3)
    with pytest.raises(UserError, match="a and b have no variant with finished SAEs of like L0"):
        compare(ROWS, other[2:], ("a", "b"))


def test_from_the_command_line_and_in_python(capsys):
    file = write()
    assert saelight_("sweep", "run", file, "--out", "s", "--filter", "topk-lr0.001") == 0
    capsys.readouterr()
    assert saelight_("sweep", "best", "s", "--at-l0", "4") == 0
    assert names(capsys.readouterr().out) == ["topk-lr0.001-k4"]
    assert saelight_("sweep", "compare", "s", "s") == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("1.000")
    rows = saelight.results("s")
    assert len({tuple(row) for row in rows}) == 1
    done = [row for row in rows if row["state"] == "finished"]
    assert {row["settings.sae.k"] for row in done} == {2, 4}
    assert all(0 < row["metrics.fvu"] < 2 for row in done)
    of_run = saelight.results(f"s/runs/{done[0]['group']}")
    assert {row["name"]: row["metrics.fvu"] for row in of_run} == {row["name"]: row["metrics.fvu"] for row in done}
    assert of_run[0]["variant"] == "TopK"
    assert "holds no results: give a sweep's folder" in refused(capsys, "sweep", "best", ".")
