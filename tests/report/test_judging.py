"""Fronts, the best at each L0, settings at matched L0, and curves that are thinned."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saelight.report.curves import read_curve, thinned
from saelight.report.matched import LEAST, NEAR, Measured, relative
from saelight.report.metric_words import WORDS
from saelight.report.octaves import TIE, best_by_octave, octave
from saelight.run.metric_names import LARGER_IS_BETTER
from saelight.sweep.show.fronts import front

places = st.lists(st.tuples(st.floats(0.1, 300), st.floats(0.001, 2)), min_size=1, max_size=40)


@settings(max_examples=40)
@given(places)
def test_a_front_holds_nothing_dominated_and_misses_nothing_by_more_than_a_tie(points):
    kept = front(points, TIE)
    own = [points[i] for i in kept]
    assert own == sorted(own)
    assert all(later[1] < earlier[1] * (1 - TIE) for earlier, later in pairwise(own))
    for l0, cost in points:
        assert any(x <= l0 * (1 + TIE) and y * (1 - TIE) <= cost for x, y in own)


def test_near_ties_make_no_zigzag():
    assert front([(1, 0.5), (2, 0.4), (2.1, 0.399), (2.2, 0.401), (4, 0.2)], TIE) == [0, 1, 4]


def test_which_way_is_better_is_the_same_everywhere():
    assert {name for name, word in WORDS.items() if word.better == "high"} == LARGER_IS_BETTER


@pytest.mark.parametrize(("l0", "n"), [(1.0, 0), (1.99, 0), (2.0, 1), (0.5, -1), (0.7, -1), (64.0, 6), (63.99, 5)])
def test_octaves(l0, n):
    assert octave(l0) == n
    assert 2.0**n <= l0 < 2.0 ** (n + 1)


@settings(max_examples=40)
@given(places)
def test_the_best_of_an_octave_is_beaten_by_none_in_it(points):
    for n, i in best_by_octave(points).items():
        assert all(points[i][1] <= cost for l0, cost in points if octave(l0) == n)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 100), st.floats(0, 2)), max_size=30))
def test_relative_is_what_comparing_with_each_other_one_gives(given_saes):
    saes = [Measured(*sae) for sae in given_saes]
    for sae, ratio in zip(saes, relative(saes), strict=True):
        near = [o.fvu for o in saes if o.variant == sae.variant and o.fvu > 0 and sae.l0 / NEAR <= o.l0 <= sae.l0 * NEAR]
        if sae.l0 > 0 and sae.fvu > 0 and len(near) >= LEAST:
            near.sort()
            middle = (near[(len(near) - 1) // 2] + near[len(near) // 2]) / 2
            assert ratio == pytest.approx(sae.fvu / middle)
        else:
            assert ratio is None


@settings(max_examples=40)
@given(st.lists(st.one_of(st.none(), st.floats(0, 9)), max_size=200), st.integers(2, 50))
def test_thinned_is_bounded_and_keeps_ends_order_and_spikes(losses, most):
    rows = [(float(i), loss) for i, loss in enumerate(losses)]
    kept = thinned(rows, most)
    assert len(kept) <= most
    assert kept == sorted(set(kept), key=lambda row: row[0])
    if rows:
        assert (kept[0], kept[-1]) == (rows[0], rows[-1])
    if most >= 4:
        known = [loss for _, loss in rows if loss is not None]
        shown = [loss for _, loss in kept if loss is not None]
        assert (max(known, default=None), min(known, default=None)) == (max(shown, default=None), min(shown, default=None))


def test_a_long_log_keeps_its_spike(tmp_path):
    lines = [f"{i},{99 if i == 4321 else math.exp(-i / 3000):.5f},5,0.5" for i in range(10_000)]
    (tmp_path / "metrics.csv").write_text("\n".join(["step,train/loss,train/l0,train/fvu", *lines]) + "\n")
    curve = read_curve(tmp_path / "metrics.csv", 40)
    assert curve is not None
    assert {len(values) for values in curve.values()} == {40}
    assert curve["step"][curve["loss"].index(99)] == 4321
    assert (curve["step"][0], curve["step"][-1]) == (0, 9999)
    assert read_curve(tmp_path / "nothing.csv", 40) is None
