"""Folders that saelight writes open in sparsify, and sparsify's in saelight: the same latents and reconstructions."""

import pytest
import torch

from saelight.convert import read, write
from tests.conformance.peers.into_sparsify import latents, sparsify
from tests.support.conversions import CONFIGS, D, F, K, rows, same, same_sae, trained, with_skip


@pytest.mark.parametrize("name", ["topk", "topk_unit", "matryoshka_topk"])
def test_an_autoencoder_opens(name, tmp_path):
    sae = trained(CONFIGS[name])
    write(sae, tmp_path / "layers.3.mlp", to="sparsify")
    theirs = sparsify.SparseCoder.load_many(str(tmp_path), local=True)["layers.3.mlp"]
    same_sae(sae, lambda x: latents(theirs, x), lambda x: theirs(x).sae_out, rows())


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", ["topk", "matryoshka_topk"])
def test_a_transcoder_opens(name, skip, tmp_path):
    sae = trained(with_skip(CONFIGS[name]) if skip else CONFIGS[name], d_out=D)
    write(sae, tmp_path / "out", to="sparsify")
    theirs = sparsify.SparseCoder.load_from_disk(tmp_path / "out")
    same_sae(sae, lambda x: latents(theirs, x), lambda x: theirs(x).sae_out, rows())


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("transcode", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_own_folder_opens_here(transcode, skip, dtype, tmp_path):
    torch.manual_seed(3)
    config = sparsify.SparseCoderConfig(num_latents=F, k=K, transcode=transcode, skip_connection=skip)
    coder = sparsify.SparseCoder(D, config, dtype=dtype)
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    coder.save_to_disk(tmp_path / "run" / "layers.3")
    (tmp_path / "run" / "config.json").write_text(
        '{"model": "EleutherAI/pythia-70m", "dataset": "some/text", "ctx_len": 64}'
    )
    ours, x = read(tmp_path / "run" / "layers.3"), rows()
    # In float32: its own products in bfloat16 are other than those of the same weights.
    coder = coder.float()
    assert same(latents(coder, x), ours.encode(x))
    assert same(coder(x).sae_out, ours(x))
    assert ours.provenance.source["model"] == "EleutherAI/pythia-70m"
    assert ours.provenance.source["context"] == 64
    assert ours.provenance.source["hook"] == ("layers.3.input" if transcode else "layers.3")
