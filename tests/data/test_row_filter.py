"""Which rows a filter drops, that this does not depend on how they come, and that its report is true."""

import pytest
import torch

from saelight.data.dropped import in_words
from saelight.data.row_filter import Piece, RowFilter
from saelight.errors import UserError
from tests.data.folders import SINK_EVERY, with_sinks

N = 10_000


def piece(x, **more):
    n = len(x)
    columns = {
        "token_ids": torch.arange(n, dtype=torch.int32) % 40,
        "positions": torch.arange(n, dtype=torch.int32) % SINK_EVERY,
        "document_ids": torch.arange(n) // 500,
    }
    return Piece({"a": x}, columns, **more)


def passed(row_filter, whole, size=700):
    """What passes of `whole`, in pieces of `size` rows."""
    n = len(whole.columns["positions"])
    kept = list(row_filter(whole.take(slice(i, i + size)) for i in range(0, n, size)))
    x = {hook: torch.cat([p.x[hook] for p in kept]) for hook in whole.x}
    return x, {name: torch.cat([p.columns[name] for p in kept]) for name in whole.columns}


def test_sinks_are_dropped_and_the_report_is_true():
    whole = piece(with_sinks(N))
    row_filter = RowFilter()
    x, columns = passed(row_filter, whole)
    sink = torch.arange(N) % SINK_EVERY == 0
    assert torch.equal(x["a"], whole.x["a"][~sink])
    assert torch.equal(columns["document_ids"], whole.columns["document_ids"][~sink])
    squares = whole.x["a"].double().square().sum(1)
    report = row_filter.report("a")
    assert (report["rows_seen"], report["rows_dropped"]) == (N, 80)
    assert report["share"] == pytest.approx((squares[sink].sum() / squares.sum()).item(), rel=1e-12)
    assert report["share"] > 0.98
    assert report["reasons"] == {"norm": {"rows": 80, "share": report["share"], "positions": {"0": 80}}}
    assert report["norm_documents"] == 20
    assert report["norm_places"][:2] == [
        {"token_ids": 0, "positions": 0, "document_ids": 0},
        {"token_ids": 125 % 40, "positions": 0, "document_ids": 0},
    ]
    assert len(report["norm_places"]) == 64
    assert report["limit"] == pytest.approx(10 * squares[:8192].sqrt().median().item())
    assert in_words(report).startswith(f"80 of 10,000 rows, {report['share']:.2%} of Σ‖x‖²; norm limit ")
    assert "norm 80 (" in in_words(report)
    assert "at positions 0 (80)" in in_words(report)


@pytest.mark.parametrize("at_most", [None, 1, 124, 125, 5000, N])
def test_what_passes_and_what_is_reported_do_not_depend_on_the_pieces(at_most):
    whole = piece(with_sinks(N), special_N=torch.arange(N) % SINK_EVERY == 7)
    results = []
    for size in (1, 333, 8192, N) if at_most == 125 else (333, 8192, N):
        row_filter = RowFilter(skip_positions=1, drop_tokens=[3], at_most=at_most)
        x, _ = passed(row_filter, whole, size)
        results.append((x["a"].tolist(), row_filter.report("a")))
    assert all(result == results[0] for result in results)
    if at_most is not None and at_most < N:
        assert len(results[0][0]) == at_most


def test_each_row_counts_under_the_first_reason():
    x = torch.ones(8, 4)
    x[[0, 1, 2, 5]] = 1000
    special = torch.tensor([True] + [False] * 7)
    columns = {"token_ids": torch.tensor([9, 9, 9, 9, 1, 1, 1, 1]), "positions": torch.arange(8)}
    row_filter = RowFilter(skip_positions=2, drop_tokens=[9])
    (kept,) = row_filter([Piece({"a": x}, columns, special)])
    assert kept.columns["positions"].tolist() == [4, 6, 7]
    reasons = row_filter.report("a")["reasons"]
    assert {name: of["rows"] for name, of in reasons.items()} == {"special": 1, "position": 1, "token": 2, "norm": 1}
    assert reasons["token"]["positions"] == {"2-3": 2}
    assert reasons["norm"]["positions"] == {"4-7": 1}


def test_a_row_that_one_hook_drops_is_dropped_for_all():
    whole = piece(with_sinks(N))
    other = torch.randn(N, 3)
    other[50] *= 1000
    row_filter = RowFilter()
    x, _ = passed(row_filter, whole._replace(x={**whole.x, "b": other}))
    keep = torch.arange(N) % SINK_EVERY != 0
    keep[50] = False
    assert torch.equal(x["a"], whole.x["a"][keep])
    assert torch.equal(x["b"], other[keep])
    assert row_filter.report("a")["rows_dropped"] == row_filter.report("b")["rows_dropped"] == 81
    assert row_filter.report("a")["share"] != row_filter.report("b")["share"]


def test_null_keeps_all_and_zero_rows_make_no_limit():
    whole = piece(with_sinks(N))
    assert len(passed(RowFilter(max_norm=None), whole)[0]["a"]) == N
    nothing = piece(torch.zeros(300, 4))
    row_filter = RowFilter()
    assert len(passed(row_filter, nothing)[0]["a"]) == 300
    assert row_filter.report("a")["limit"] is None


def test_a_row_that_is_not_finite_is_left_to_the_writer_to_name():
    x = with_sinks(300)
    x[7] = torch.inf
    kept, _ = passed(RowFilter(), piece(x))
    assert not kept["a"].isfinite().all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_norm": 1.0}, "must be above 1, got 1.0; null keeps all"),
        ({"skip_positions": -1}, "skip_positions must be at least 0"),
        ({"skip_positions": 2}, "skip_positions needs the column positions"),
        ({"drop_tokens": [0]}, "drop_tokens needs the column token_ids"),
    ],
)
def test_bad_settings_are_one_line(settings, words):
    with pytest.raises(UserError, match=words):
        list(RowFilter(**settings)([Piece({"a": torch.ones(3, 2)}, {})]))
