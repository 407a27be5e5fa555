"""Sets that saelight writes open in circuit-tracer, and its own in saelight: the same latents and reconstructions."""

import pytest
import torch
import yaml

from saelight.convert import convert, read, write
from tests.conformance.peers.support import peer
from tests.support.conversions import CONFIGS, D, rows, same, same_sae, trained, with_skip

loader = peer("circuit_tracer.transcoder.single_layer_transcoder")


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", ["relu", "jump_relu_tanh", "batch_topk", "matryoshka_batch_topk"])
def test_a_set_opens_and_comes_back(name, skip, tmp_path):
    config = with_skip(CONFIGS[name]) if skip else CONFIGS[name]
    saes, x = [trained(config, d_out=D, layer=layer) for layer in range(3)], rows()
    for layer, sae in enumerate(saes):
        write(sae, tmp_path / "in" / str(layer))
    convert(tmp_path / "in", tmp_path / "set", to="circuit_tracer")
    stated = yaml.safe_load((tmp_path / "set" / "config.yaml").read_text())
    hooks = {key: stated[key] for key in ("feature_input_hook", "feature_output_hook")}
    files = {layer: str(tmp_path / "set" / f"layer_{layer}.safetensors") for layer in range(3)}
    for lazy in (False, True):
        theirs = loader.load_transcoder_set(
            files, "scan", **hooks, device=torch.device("cpu"), lazy_encoder=lazy, lazy_decoder=lazy
        )
        for sae, transcoder in zip(saes, theirs, strict=True):
            same_sae(sae, transcoder.encode, transcoder, x)
    loader.load_transcoder_set(
        files, "scan", **hooks, device=torch.device("cpu"), lazy_encoder=False, lazy_decoder=False
    ).to_safetensors(str(tmp_path / "theirs"))
    for layer, sae in enumerate(saes):
        assert same(sae(x), read(tmp_path / "theirs" / f"layer_{layer}.safetensors")(x))
