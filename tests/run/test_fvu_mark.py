"""Tables mark an FVU that is not what most tokens have."""

import math
import random

from saelight.run.fvu_mark import MARK, NOTE, disagrees
from saelight.run.report import table
from saelight.sweep.show.status import _table as status
from tests.sweep.rows import make_row

SETTINGS = {"sae.class_path": "TopK", "sae.sparsity": 0.1, "sae.lr": 1e-3, "sae.encoder_scale": 1.0, "sae.expansion": 4}


def rows(*metrics):
    made = [make_row(i, dict(SETTINGS), random.Random(0), metrics=m, eta=None, of_steps=20) for i, m in enumerate(metrics)]
    return [row | {"fvu_disagrees": disagrees(row["metrics"])} for row in made]


def test_more_than_a_factor_two_in_either_direction():
    assert not disagrees({"fvu": 0.2, "fvu_median": 0.39})
    assert disagrees({"fvu": 0.2, "fvu_median": 0.41})
    assert disagrees({"fvu": 0.41, "fvu_median": 0.2})
    assert disagrees({"fvu": 0.2, "fvu_median": 0.0})
    assert not disagrees({"fvu": 1e-16, "fvu_median": 0.0})
    for unknown in (None, math.nan):
        assert not disagrees({"fvu": unknown, "fvu_median": 0.2})
    assert not disagrees({})


def test_the_table_shows_the_median_where_one_disagrees():
    found = rows(
        {"l0": 32.0, "fvu": 0.0022, "fvu_median": 0.41, "dead": 0}, {"l0": 30.0, "fvu": 0.3, "fvu_median": 0.4, "dead": 0}
    )
    head, first, second, note, place = table(found).splitlines()
    assert head.split() == ["name", "variant", "d_sae", "L0", "FVU", "median", "dead", "%", "time"]
    assert first.split()[3:6] == ["32.0", f"0.0022{MARK}", "0.4100"]
    assert second.split()[3:6] == ["30.0", "0.3000", "0.4000"]
    assert place == "the SAEs are in saes/"
    assert note == NOTE
    assert "median" not in table(found[1:])


def test_status_marks_it_too():
    found = rows({"l0": 32.0, "fvu": 0.0022, "fvu_median": 0.41}, {"l0": 30.0, "fvu": 0.3, "fvu_median": 0.4})
    lines = status(found).splitlines()
    assert f"0.0022{MARK}" in lines[1]
    assert MARK not in lines[2]
    assert lines[3] == NOTE
    assert NOTE not in status(found[1:])
