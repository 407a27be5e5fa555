"""The speed benchmark measures what the bank does, and writes what it measured."""

import json

import torch

from benchmarks.bare import BareLoop
from benchmarks.speed import measure, ours, table
from saelight.schedules import Horizon
from tests.support.activations import sparse_activations
from tests.support.banks import assert_equal, bank, fit
from tests.support.variants import VARIANTS


def test_the_bare_loop_trains_as_the_bank_does():
    """Bit for bit, every variant: nothing that costs time is left out."""
    batches = sparse_activations(6 * 64)
    trained = bank(seed=2)
    fit(trained, batches)
    horizon = Horizon(6, 6, 64)
    saes = [config.build(16, seed) for config, seed in zip(VARIANTS.values(), bank(seed=2).seeds, strict=True)]
    for sae in saes:
        sae.initialise(batches)
        sae.dead_after.fill_(sae.config.dead_after or horizon.tokens // 20)
    loop = BareLoop(saes, horizon, whitening_DD=trained.whitening)
    for x_BD in batches.split(64):
        loop(x_BD)
    for name, sae in zip(VARIANTS, saes, strict=True):
        if name != "relu_p":  # resampling is the bank's, once in many steps
            assert_equal(dict(sae.state_dict()), dict(trained[name].state_dict()))


def test_variants_are_brought_to_the_sparsity_that_is_measured():
    batches = [measure.activations(512, 32, seed) for seed in range(2)]
    for variant in ("relu", "jump_relu", "gated"):
        loop = ours.bank(variant, 2, 32, 256, 8, batches[0], 0.015, torch.float32)
        times = measure.interleaved({"ours": (2, loop)}, batches, rounds=2)
        share = loop.saes[0].encode(batches[1]).ne(0).float().mean()
        assert 0.005 < share < 0.03
        assert all(bool(sae.is_sparse) for sae in loop.saes)
        assert len(times["ours"].seconds) == 2
        assert times["ours"].spread[0] <= times["ours"].rate <= times["ours"].spread[1]


def test_the_table_names_the_fastest_peer(tmp_path, monkeypatch):
    rates = {
        "saelight fp32": [30, 29, 31],
        "saelight bf16": [40, 39, 41],
        "slow fp32": [3, 2, 4],
        "quick fp32": [10, 9, 11],
        "quick bf16": [15, 14, 16],
        "slow bf16": [16, 15, 17],
    }
    entry = {"saes": 9, "rounds": 5, "rates": rates, "floor": {"fp32": 60.0, "bf16": 120.0}}
    assert "fp32 x3.00  any x2.50" in table.line("384x3072", 1, "topk", entry)
    page = tmp_path / "performance.md"
    page.write_text("before\n<!-- begin speed -->\nold\n<!-- end speed -->\nafter\n")
    monkeypatch.setattr(table, "PAGE", page)
    monkeypatch.setattr(table.importlib.metadata, "version", lambda name: "1.0")
    table.write(json.loads(json.dumps({"384x3072/1": {"topk": entry}})))
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("before")
    assert text.rstrip().endswith("after")
    assert "| topk | 30.0 (29.0–31.0) | quick 10.0 (9.0–11.0) | **3.0** (2.5) |" in text
    assert "| 40.0 (39.0–41.0) | slow bf16 16.0 (15.0–17.0) | **2.5** (2.8) | 50 % |" in text
