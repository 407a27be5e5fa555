"""dictionary_learning's dictionaries, with saelight's weights: the same latents and reconstructions.

B batch, D d_in, F d_sae.
"""

import pytest
import torch

from saelight.saes import BatchTopK, Gated, JumpReLU, Matryoshka, ReLU, SAEConfig, TopK
from tests.conformance.peers import into_dictionary_learning
from tests.conformance.peers.support import D, F, K, activations, assert_apart, assert_same, peer, trained

CONFIGS: dict[str, SAEConfig] = {
    "relu": ReLU(d_sae=F),
    "gated": Gated(d_sae=F),
    "topk": TopK(d_sae=F, k=K),
    "batch-topk": BatchTopK(d_sae=F, k=K),
    "jump-relu": JumpReLU(d_sae=F),
    "jump-relu-tanh": JumpReLU(d_sae=F, penalty="tanh"),
    "matryoshka-relu": Matryoshka(d_sae=F, base=ReLU()),
    "matryoshka-topk": Matryoshka(d_sae=F, base=TopK(k=K)),
    "matryoshka-jump-relu": Matryoshka(d_sae=F, base=JumpReLU()),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_autoencoders(name):
    sae, x_BD = trained(CONFIGS[name]).float(), activations(rows=64).float()
    theirs = into_dictionary_learning.inference(sae)
    f_BF = sae.encode(x_BD)
    assert 0.02 < (f_BF != 0).double().mean() < 0.7  # there is something to tell apart
    assert_same(f_BF, theirs.encode(x_BD))
    assert_same(sae(x_BD), theirs(x_BD))


def test_matryoshka():
    sae = trained(Matryoshka(d_sae=F, base=BatchTopK(k=K), group_fractions=[0.2, 0.3, 0.5])).float()
    x_BD = activations(rows=64).float()
    dictionary = peer("dictionary_learning.trainers.matryoshka_batch_top_k").MatryoshkaBatchTopKSAE
    theirs = into_dictionary_learning.filled(dictionary(D, F, K, group_sizes=[8, 12, 20]), sae)
    assert_same(sae.encode(x_BD), theirs.encode(x_BD))
    assert_same(sae(x_BD), theirs(x_BD))


def test_jump_relu_leaves_b_dec_on_the_input_by_default():
    sae, x_BD = trained(JumpReLU(d_sae=F)), activations(rows=64)
    theirs = into_dictionary_learning.inference(sae)
    theirs.apply_b_dec_to_input = False
    assert_apart(sae.encode(x_BD), theirs.encode(x_BD))
    into_dictionary_learning.without_b_dec_on_the_input(theirs.b_enc, sae)
    assert_same(sae.encode(x_BD), theirs.encode(x_BD))


def test_the_april_update_dictionary_returns_latents_in_two_scales():
    sae, x_BD = trained(ReLU(d_sae=F)), activations(rows=64)
    dictionary = peer("dictionary_learning.dictionary").AutoEncoderNew
    theirs = into_dictionary_learning.filled(dictionary(D, F), sae)
    into_dictionary_learning.without_b_dec_on_the_input(theirs.encoder.bias, sae)
    assert_same(sae.encode(x_BD), theirs.encode(x_BD))
    x_hat_BD, f_BF = theirs(x_BD, output_features=True)
    assert_same(sae(x_BD), x_hat_BD)
    # encode() gives f, forward() f times its row's norm: what its evaluations call L1 is not of encode()'s latents.
    assert_same(sae.encode(x_BD) * sae.W_dec.norm(dim=1), f_BF)


def test_loading_a_free_decoder_rescales_the_latents(tmp_path):
    sae, x_BD = trained(ReLU(d_sae=F)).float(), activations(rows=64).float()
    theirs = into_dictionary_learning.inference(sae)
    torch.save(theirs.state_dict(), tmp_path / "ae.pt")
    kept = type(theirs).from_pretrained(tmp_path / "ae.pt", normalize_decoder=False)
    assert_same(sae.encode(x_BD), kept.encode(x_BD))
    # Its default makes decoder rows unit: the same reconstruction from other latents.
    scaled = type(theirs).from_pretrained(tmp_path / "ae.pt")
    assert_same(sae.encode(x_BD) * sae.W_dec.norm(dim=1), scaled.encode(x_BD))
    assert_same(sae(x_BD), scaled(x_BD))
