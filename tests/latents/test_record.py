"""What is recorded of latents while rows stream past is what a loop over all of them finds, whatever the pieces."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from saelight.latents import latents_format as layout
from saelight.latents.cofiring import RowSample
from saelight.latents.firings import chances, firings
from saelight.latents.latent_record import LatentRecord
from saelight.latents.token_counts import COUNTERS, TokenCounts
from saelight.latents.windowed_rows import Piece

ROWS, LATENTS, VOCABULARY = 4000, 12, 60


@pytest.fixture(scope="module")
def stream():
    """Latents, their rows' windows and tokens: some rare, one dense, one that is silent, one that has both signs."""
    rng = np.random.default_rng(0)
    share = np.array([0.9, 0.3, 0.3, 0.1, 0.1, 0.05, 0.02, 0.01, 0.003, 0.001, 0.2, 0.0])
    f = np.exp(2 * rng.standard_normal((ROWS, LATENTS))).astype(np.float32) * (rng.random((ROWS, LATENTS)) < share)
    f[:, 10] *= rng.choice([-1, 1], ROWS)
    f[:, 2] = f[:, 1]
    f[5:50, 3] = 2.0  # equals
    windows = np.cumsum(rng.random(ROWS) < 1 / 20)
    tokens = rng.zipf(1.5, ROWS) % VOCABULARY
    return f.astype(np.float32), windows, tokens


def recorded(stream, cuts, seed: int = 0) -> LatentRecord:
    f, windows, tokens = stream
    record = LatentRecord(LATENTS, seed)
    for start, stop in zip([0, *cuts], [*cuts, ROWS], strict=True):
        part = slice(start, stop)
        record.add(Piece(start, torch.empty(stop - start, 1), windows[part] - windows[start], tokens[part]), f[part])
    return record


def window_starts(windows, n):
    """About n cuts at which windows begin."""
    begins = np.flatnonzero(np.diff(windows)) + 1
    return begins[:: max(1, len(begins) // n)].tolist()


@pytest.mark.parametrize("n", [1, 7, 190])
def test_is_what_a_loop_finds(stream, n):
    f, windows, _ = stream
    record = recorded(stream, window_starts(windows, n))
    for i in range(LATENTS):
        rows = np.flatnonzero(f[:, i])
        assert record.fired_F[i] == len(rows)
        assert record.total_F[i] == pytest.approx(np.abs(f[:, i]).sum(dtype=float))
        bins = np.floor(np.log2(np.abs(f[rows, i]))).astype(int) - record.lowest_octave
        assert {b: n for b, n in enumerate(record.histogram_FH[i].tolist()) if n} == Counter(
            bins.clip(0, layout.OCTAVES - 1).tolist()
        )
        best = defaultdict(lambda: (0.0, 0))
        for row in rows.tolist():
            best[windows[row]] = max(best[windows[row]], (abs(float(f[row, i])), -row))
        strongest = sorted(best.values(), reverse=True)
        top = record.top.columns["rows"][i]
        assert top.tolist() == ([-row for _, row in strongest] + [-1] * layout.TOP)[: layout.TOP]
        assert record.top.columns["values"][i].tolist() == [f[row, i] if row >= 0 else 0 for row in top]
        for place, row in enumerate(top[top >= 0]):
            around = record.top.columns["activations"][i, place]
            for j, unit in enumerate(around.tolist(), start=row - layout.BEFORE):
                inside = 0 <= j < ROWS and windows[j] == windows[row]
                share = f[j, i] / f[row, i] if inside else 0
                assert unit == (max(1, round(255 * share)) if share > 0 else 0)
        luck = chances(0, i + 1, np.array([-row for _, row in strongest])).tolist()
        drawn = sorted(((chance, size, -row) for chance, (size, row) in zip(luck, strongest, strict=True)), reverse=True)
        highest = int(np.floor(np.log2(strongest[0][0]))) if strongest else 0
        for k, owner in enumerate(record.intervals()[i]):
            wanted = [row for _, size, row in drawn if int(np.floor(np.log2(size))) == highest - k][: layout.SAMPLES]
            held = record.samples.columns["rows"][owner]
            assert held[held >= 0].tolist() == wanted


def test_pieces_and_a_stop_change_no_bit(stream):
    _, windows, _ = stream
    cuts = window_starts(windows, 40)
    whole, half = recorded(stream, cuts), LatentRecord(LATENTS, 0)
    first = recorded((stream[0], *stream[1:]), cuts)
    half.restore({name: array.copy() for name, array in first.arrays().items()}, first.next_row, first.lowest_octave, 1.0)
    other = recorded(stream, window_starts(windows, 3))
    for name, array in whole.arrays().items():
        assert array.tobytes() == half.arrays()[name].tobytes()
        if not name.startswith("tokens."):  # a sketch depends on where it is merged
            np.testing.assert_allclose(array, other.arrays()[name], rtol=1e-12)


def test_another_seed_draws_other_contexts(stream):
    cuts = window_starts(stream[1], 7)
    one, other = recorded(stream, cuts), recorded(stream, cuts, seed=1)
    assert (one.samples.columns["rows"] != other.samples.columns["rows"]).any()
    assert (one.top.columns["rows"] == other.top.columns["rows"]).all()


@pytest.mark.parametrize("spread", [1.1, 2.0])
@pytest.mark.parametrize("piece", [50, 3000])
def test_a_token_count_is_too_low_by_no_more_than_it_says(spread, piece):
    rng = np.random.default_rng(1)
    latents, tokens = np.sort(rng.integers(0, 3, 9000)), rng.zipf(spread, 9000) % 1000
    order = rng.permutation(9000)
    latents, tokens = latents[order], tokens[order]
    counts = TokenCounts(4)
    for start in range(0, 9000, piece):
        part = slice(start, start + piece)
        by_latent = np.argsort(latents[part], kind="stable")
        counts.add(latents[part][by_latent], tokens[part][by_latent])
    ids, found = counts.most(COUNTERS)
    for i in range(3):
        true = Counter(tokens[latents == i].tolist())
        error = int(counts.error_F[i])
        assert error <= true.total() / (COUNTERS + 1)
        kept = dict(zip(ids[i].tolist(), found[i].tolist(), strict=True))
        assert all(true[id] - error <= n <= true[id] for id, n in kept.items() if id >= 0)
        assert {id for id, n in true.items() if n > error} <= kept.keys()
    assert (ids[3] == -1).all()


def test_latents_that_fire_together(stream):
    f = stream[0]
    sample = RowSample(LATENTS, seed=0)
    for start in range(0, ROWS, 500):
        sample.add(firings(f[start : start + 500]), start, 500)
    together = sample.together(3)
    fires = (f != 0).astype(int)
    both = fires.T @ fires
    assert together.fired_F.tolist() == np.diag(both).tolist()
    assert together.latents_FN[1, 0] == 2
    for i in range(LATENTS):
        cosines = both[i] / np.sqrt(np.maximum(1, both[i, i] * np.diag(both).astype(float)))
        cosines[i] = -1
        wanted = [j for j in np.argsort(-cosines, kind="stable") if j != i and both[i, j] >= 2][:3]
        assert [j for j in together.latents_FN[i] if j >= 0] == wanted
        assert [n for n in together.counts_FN[i] if n] == [both[i, j] for j in wanted]


def test_a_sample_of_rows_that_is_full_keeps_each_with_the_same_chance(monkeypatch):
    monkeypatch.setattr("saelight.latents.cofiring.ENTRIES", 500)
    rng = np.random.default_rng(0)
    f = (rng.random((3000, 5)) < 0.5).astype(np.float32)
    samples = [RowSample(5, seed=3) for _ in range(2)]
    for sample, size in zip(samples, (100, 3000), strict=True):
        for start in range(0, 3000, size):
            sample.add(firings(f[start : start + size]), start, min(size, 3000 - start))
    one, other = samples
    assert one.share == other.share == 2**-4
    assert one.latents_E.tolist() == other.latents_E.tolist()
    rows = np.flatnonzero(chances(3, 0, np.arange(3000)) < one.share)
    assert one.sizes_S.tolist() == f[rows].sum(1).tolist()
    assert one.latents_E.tolist() == np.nonzero(f[rows])[1].tolist()
