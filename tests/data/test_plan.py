"""The order of rows: every row once per pass, ranks apart, from any position."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from saelight.data.stream.order import Plan, cut, sample

cases = settings(max_examples=80, deadline=None)
sizes = {"rows": st.integers(1, 400), "block": st.integers(1, 60), "window": st.integers(1, 6), "seed": st.integers(0, 3)}


def order(plan, start, n):
    """Numbers of rows [start, start + n) of a plan."""
    out = []
    for window, skip in plan.windows(start):
        rows = np.concatenate([np.arange(s, s + k) for s, k in zip(window.starts, window.sizes, strict=True)])
        out.extend(rows[plan.order(window)][skip:].tolist())
        if len(out) >= n:
            return out[:n]


@cases
@given(**sizes, world=st.integers(1, 4), pass_=st.integers(0, 5))
def test_every_row_once_per_pass_and_ranks_disjoint(rows, block, window, seed, world, pass_):
    blocks = cut(0, rows, block)
    assert blocks.rows == rows
    dealt = [Plan(blocks, seed, rank, world, window).pass_blocks(pass_) for rank in range(world)]
    assert sorted(np.concatenate(dealt)) == list(range(len(blocks.starts)))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@cases
@given(**sizes, world=st.integers(1, 3))
def test_ranks_stay_level_over_passes(rows, block, window, seed, world):
    blocks = cut(0, rows, block)
    plans = [Plan(blocks, seed, rank, world, window) for rank in range(world)]
    dealt = np.zeros(world, int)
    for pass_ in range(7):
        dealt += [len(plan.pass_blocks(pass_)) for plan in plans]
        assert dealt.max() - dealt.min() <= 1


@cases
@given(**sizes)
def test_one_rank_sees_each_pass_whole(rows, block, window, seed):
    seen = order(Plan(cut(0, rows, block), seed, window=window), 0, 3 * rows)
    for pass_ in range(3):
        assert sorted(seen[pass_ * rows : (pass_ + 1) * rows]) == list(range(rows))


@cases
@given(**sizes, world=st.integers(1, 3), start=st.integers(0, 900), rank=st.integers(0, 2))
def test_any_position_is_the_same_stream(rows, block, window, seed, world, start, rank):
    plan = Plan(cut(0, rows, block), seed, rank % world, world, window)
    n = start + 50
    assert order(plan, start, 50) == order(plan, 0, n)[start:]


@cases
@given(rows=st.integers(1, 400), block=st.integers(1, 60), cap=st.integers(1, 500), seed=st.integers(0, 3))
def test_a_sample_has_exactly_the_rows_asked_for(rows, block, cap, seed):
    blocks = cut(7, 7 + rows, block)
    chosen = sample(blocks, cap, seed)
    assert chosen.rows == min(cap, rows)
    assert (chosen.sizes > 0).all()
    numbers = [i for s, k in zip(*chosen, strict=True) for i in range(s, s + k)]
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= set(range(7, 7 + rows))


def test_the_order_depends_on_seed_pass_rank_and_world():
    blocks = cut(0, 4096, 64)
    first = order(Plan(blocks, 0, window=8), 0, 4096)
    assert first == order(Plan(blocks, 0, window=8), 0, 4096)
    others = [order(Plan(blocks, 1, window=8), 0, 4096), order(Plan(blocks, 0, window=8), 4096, 4096)]
    assert all(first != other for other in others)
    ranks = [order(Plan(blocks, 0, rank, 2, window=8), 0, 2048) for rank in range(2)]
    assert sorted(itertools.chain(*ranks)) == list(range(4096))


def test_samples_are_spread():
    chosen = sample(cut(0, 100_000, 100), 20_000, seed=0)
    assert abs(np.mean(chosen.starts) - 50_000) < 6_000
