"""Activations that SAELens's own runner cached, and tables that `datasets` saved: read where they lie, number for number."""

import numpy as np
import pytest
import torch

from saelight.data.datamodule import ActivationDataModule
from saelight.data.foreign.opening import open_rows
from tests.conformance.peers.support import peer

CONTEXT, D, HOOK = 8, 16, "blocks.0.hook_resid_post"

# Other libraries' own warnings are no matter of ours
pytestmark = pytest.mark.filterwarnings("ignore")


def small_model(hooked):
    """A transformer of one layer with random weights: no name that SAELens could load needs a network."""
    config = hooked.HookedTransformerConfig(
        n_layers=1, d_model=D, n_ctx=CONTEXT, d_head=8, n_heads=2, d_vocab=50, act_fn="relu", seed=0, device="cpu"
    )
    return hooked.HookedTransformer(config)


def test_a_cache_of_sae_lens(tmp_path, monkeypatch):
    runner, config = peer("sae_lens.cache_activations_runner"), peer("sae_lens.config")
    datasets, hooked = peer("datasets"), peer("transformer_lens")
    model = small_model(hooked)
    monkeypatch.setattr(runner, "load_model", lambda **_: model)
    tokens = np.random.default_rng(0).integers(1, 50, (200, CONTEXT))
    cfg = config.CacheActivationsRunnerConfig(
        dataset_path="in-memory",
        model_name="small",
        model_batch_size=4,
        hook_name=HOOK,
        d_in=D,
        training_tokens=1024,
        context_size=CONTEXT,
        new_cached_activations_path=str(tmp_path / "cache"),
        shuffle=False,
        device="cpu",
        buffer_size_gb=1e-5,
        prepend_bos=False,
        streaming=False,
    )
    runner.CacheActivationsRunner(cfg, override_dataset=datasets.Dataset.from_dict({"tokens": tokens.tolist()})).run()

    rows = open_rows(tmp_path / "cache")
    assert (rows.n_rows, rows.d_in, rows.dtype, rows.columns) == (1024, D, torch.float32, ["token_ids", "positions"])
    assert rows.known.files > 1
    theirs = datasets.load_from_disk(str(tmp_path / "cache")).with_format("numpy")
    rows.read(0, x_ND := torch.empty(1024, D))
    assert np.array_equal(x_ND.numpy(), np.stack(theirs[:][HOOK]).reshape(-1, D))
    assert np.array_equal(rows.column("token_ids", 0, 1024).numpy(), np.stack(theirs[:]["token_ids"]).reshape(-1))
    _, cache = model.run_with_cache(rows.column("token_ids", 0, 1024).long().view(-1, CONTEXT))
    torch.testing.assert_close(x_ND.view(-1, CONTEXT, D), cache[HOOK], atol=1e-5, rtol=1e-5)
    batches = ActivationDataModule(f"{tmp_path}/cache:{HOOK}", batch_size=100).train_dataloader()
    assert len(list(batches)) == 10


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tables_of_datasets(tmp_path, dtype):
    datasets = peer("datasets")
    x = np.random.default_rng(0).normal(size=(300, 4, 6)).astype(dtype)
    features = datasets.Features({"acts": datasets.Array2D((4, 6), dtype), "vector": datasets.List(datasets.Value(dtype))})
    table = datasets.Dataset.from_dict({"acts": x, "vector": x[:, 0].tolist()}, features=features)
    table.save_to_disk(tmp_path / "t", num_shards=3)
    for name, wanted in (("acts", x.reshape(-1, 6)), ("vector", x[:, 0])):
        rows = open_rows(f"{tmp_path}/t:{name}")
        rows.read(0, x_ND := torch.empty(rows.n_rows, 6, dtype=rows.dtype))
        assert np.array_equal(x_ND.numpy(), wanted)


def test_parquet_of_datasets(tmp_path):
    datasets = peer("datasets")
    x = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    datasets.Dataset.from_dict({"embedding": x.tolist(), "text": ["a"] * 300}).to_parquet(tmp_path / "x.parquet")
    rows = open_rows(tmp_path / "x.parquet")
    rows.read(0, x_ND := torch.empty(300, 6))
    assert np.array_equal(x_ND.numpy(), x)
