"""What the figures of a sweep show."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from saelight.sweep.show.figures import FIGURES, NothingToDraw, figures_of, png
from saelight.sweep.show.figures.canvas import COLOURS
from saelight.sweep.show.figures.pareto import TIE
from saelight.sweep.show.fronts import at, front
from tests.sweep.rows import GRID, SETTINGS, make_row, sweep


def panels(figure) -> dict:
    """The panels of a figure by the setting on their x axis."""
    return {axes.get_xlabel(): axes for axes in figure.axes}


def legend_of(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def footer(figure) -> str:
    return figure.get_supxlabel().replace("\n", " ")


@given(st.lists(st.tuples(*[st.integers(1, 6).map(float)] * 2), min_size=1, max_size=30))
def test_the_front_is_what_nothing_dominates(points):
    def beats(p, q):
        return p[0] <= q[0] and p[1] <= q[1] and p != q

    kept = front(points)
    assert set(kept) == {i for i, q in enumerate(points) if not any(beats(p, q) for p in points)}
    assert len(set(kept)) == len(kept)
    assert [points[i][0] for i in kept] == sorted(points[i][0] for i in kept)


@given(st.lists(st.tuples(*[st.floats(1, 2)] * 2), min_size=1, max_size=30))
def test_near_ties_are_no_zigzag(points):
    kept = front(points, tie=0.01)
    assert kept
    assert set(kept) <= set(front(points))
    for a, b in pairwise([points[i] for i in kept]):
        assert b[0] > a[0] * 1.01
        assert b[1] < a[1] * 0.99


def test_fvu_at_an_l0_between_points():
    assert at([(16, 0.4), (36, 0.1)], 24) == (pytest.approx(0.2), True)
    assert at([(16, 0.4), (64, 0.1)], 200) is None


def test_each_variants_line_is_its_front_and_what_did_not_finish_is_on_none():
    rows = sweep(48, GRID)
    best = rows[5]
    best |= {"state": "retired", "reason": "halving", "metrics": {"l0": 0.5, "fvu": 0.001}}
    rows[6]["metrics"] = {"l0": None}
    figure = FIGURES["pareto"](rows)
    lines = {to_hex(line.get_color(), keep_alpha=False).upper(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    drawn = [row for row in rows if row is not best and row["metrics"].get("fvu")]
    assert len(drawn) == 46
    points = [(row["metrics"]["l0"], row["metrics"]["fvu"]) for row in drawn]
    assert lines[COLOURS[0]] == [list(points[i]) for i in front(points, TIE)]
    assert "not finished" in legend_of(figure)
    assert "×64" in legend_of(figure)
    assert "48 points: 47 finished, 1 retired. 1 without an L0 or FVU left out." in footer(figure)


def test_a_variant_keeps_its_colour_on_every_figure_whoever_else_finished():
    rows = sweep(96)
    for row in rows:
        if row["settings"]["sae.class_path"] == "ReLU":
            row["state"] = "failed"
    assert rows[-1]["settings"]["sae.class_path"] == "HardConcrete"
    for name in ("pareto", "time_loss", "sensitivity"):
        entries = FIGURES[name](rows).legends[0].legend_handles
        assert [entry.get_color() for entry in entries if entry.get_label() == "HardConcrete"] == [COLOURS[1]]


def test_loss_stands_in_for_fvu_where_no_point_has_one():
    rows = sweep(6)
    for row in rows:
        row["metrics"] = {"l0": None, "fvu": float("nan")}
    assert FIGURES["time_loss"](rows).axes[0].get_ylabel() == "last training loss"
    with pytest.raises(NothingToDraw, match="no finished point has an L0 and an FVU above 0"):
        FIGURES["pareto"](rows)


def test_loss_recovered_stands_against_l0_where_it_was_measured():
    rows = sweep(12)
    assert "loss_recovered" not in figures_of(rows)
    for i, row in enumerate(rows[:6]):
        row["metrics"]["loss_recovered"] = 0.9 + 0.02 * i
    assert "loss_recovered" in figures_of(rows)
    figure = FIGURES["loss_recovered"](rows)
    axes = figure.axes[0]
    assert axes.get_ylabel() == "1 - loss recovered (of zero ablation)"
    heights = sorted(y for dots in axes.collections for _, y in dots.get_offsets())
    assert heights == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])  # 1 recovers all: it has no place on such an axis
    assert "7 without an L0 or loss recovered left out" in footer(figure)


def test_time_has_the_unit_that_suits_it():
    def label(seconds):
        return FIGURES["time_loss"]([make_row(0, {}, random.Random(0), seconds=seconds)]).axes[0].get_xlabel()

    assert [label(s) for s in (30, 3_000, 30_000)] == [f"training time of the SAE ({unit})" for unit in ("s", "min", "h")]


def test_a_panel_for_each_varied_setting_with_the_defaults_of_points_that_do_not_set_it():
    rng = random.Random(0)
    rows = [make_row(0, {"sae.sparsity": 0.1}, rng)]
    rows += [make_row(i, {"sae.lr": lr, "sae.seed": i}, rng) for i, lr in enumerate((1e-4, 1e-3), 1)]
    rows += [make_row(3, {"sae.tied_init": False}, rng), make_row(4, {"sae.clip": 1.0}, rng)]
    rows += [make_row(5, {"sae.schedule.name": "$cosine"}, rng), make_row(6, {"sae.schedule.name": None}, rng)]
    rows += [make_row(7, {"trainer.callbacks": value}, rng) for value in ("StopEarly", "Halving")]
    for row in rows:
        row["metrics"]["l0"] = 30.0
    figure = FIGURES["sensitivity"](rows)
    assert set(panels(figure)) == {"learning rate", "tied init", "schedule, name"}
    lr = panels(figure)["learning rate"]
    assert lr.get_xscale() == "log"
    assert [tick.get_text() for tick in lr.get_xticklabels()] == ["0.0001", "0.0003", "0.001"]
    assert lr.lines[0].get_xdata() == pytest.approx([1e-4, 3e-4, 1e-3])
    fvus = [row["metrics"]["fvu"] for row in rows if row["config"]["init_args"]["lr"] == 3e-4]
    assert min(fvus) < lr.lines[0].get_ydata()[1] < max(fvus)
    choices = panels(figure)["schedule, name"]
    assert [tick.get_text() for tick in choices.get_xticklabels()] == ["$cosine", "null"]
    assert png(figure).startswith(b"\x89PNG")


def test_numbers_drawn_at_random_are_binned_and_too_many_choices_are_no_panel():
    rng = random.Random(0)
    rows = [make_row(i, {"sae.lr": 10 ** rng.uniform(-5, -2), "data.path": f"/shards/{i}"}, rng) for i in range(60)]
    for row in rows:
        row["metrics"]["l0"] = 30.0
    figure = FIGURES["sensitivity"](rows)
    assert set(panels(figure)) == {"learning rate"}
    assert len(figure.axes[0].lines[0].get_xdata()) == 6
    assert len(figure.axes[0].collections[0].get_offsets()) == 60


def test_silhouette_has_panels_of_its_own_below():
    rows = sweep(54, SETTINGS)
    assert {axes.get_ylabel() for axes in FIGURES["sensitivity"](rows).axes} == {"FVU at equal L0", ""}
    for i, row in enumerate(rows):
        row["metrics"]["silhouette"] = i / 100 - 0.2
    figure = FIGURES["sensitivity"](rows)
    assert len(figure.axes) == 2 * len(SETTINGS)
    assert [axes.get_ylabel() for axes in figure.axes][::2] == ["FVU at equal L0"] * 2 + ["silhouette score"] * 2


def test_throughput_is_one_mark_a_group_over_all_latents_it_trained():
    rng = random.Random(0)
    points = [(8, "a", 9e4), (16, "a", 9e4), (16, "b", 5e4), (32, "b", 5e4)]
    rows = [
        make_row(i, {"sae.expansion": e}, rng, group=group, tokens_per_second=speed)
        for i, (e, group, speed) in enumerate(points)
    ]
    rows[1]["state"] = "retired"
    axes = FIGURES["throughput"](rows).axes[0]
    assert axes.collections[0].get_offsets().tolist() == [[24, 18e4], [48, 10e4]]
    for row in rows:
        row["settings"]["data.batch_size"] = 512 if row["group"] == "a" else 4096
    axes = FIGURES["throughput"](rows).axes[0]
    assert axes.get_xlabel() == "batch size (tokens)"
    assert axes.collections[0].get_offsets().tolist() == [[512, 18e4], [4096, 10e4]]


def test_a_setting_that_makes_saes_denser_does_not_look_better_for_it():
    """Two learning rates on one and the same front, at unlike L0s: at equal L0 neither is better."""
    rng, rows = random.Random(0), []
    for i, (lr, l0) in enumerate([(1e-4, 10), (1e-4, 20), (1e-4, 40), (1e-3, 20), (1e-3, 40), (1e-3, 80)]):
        row = make_row(i, {"sae.lr": lr, "sae.sparsity": 1 / l0}, rng)
        rows.append(row | {"metrics": {"l0": l0, "fvu": l0**-0.5}})
    line = panels(FIGURES["sensitivity"](rows))["learning rate"].lines[0]
    assert line.get_ydata() == pytest.approx([30**-0.5] * 2)


def test_time_is_an_saes_own_share():
    rows = [make_row(i, {}, random.Random(0), group=group, seconds=60.0) for i, group in enumerate("aab")]
    offsets = FIGURES["time_loss"](rows).axes[0].collections[0].get_offsets()
    assert offsets[:, 0].tolist() == [30, 30, 60]
