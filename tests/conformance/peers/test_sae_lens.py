"""SAELens's inference modules, with saelight's weights: the same latents and reconstructions.

B batch, D d_in, F d_sae.
"""

import pytest
import torch

from saelight.ops.normalisation import Normalisation
from saelight.saes import AbsTopK, BatchTopK, Gated, JumpReLU, MatchingPursuit, Matryoshka, ReLU, SAEConfig, TopK
from tests.conformance.peers import into_sae_lens
from tests.conformance.peers.support import D, F, K, activations, assert_apart, assert_same, trained

CONFIGS: dict[str, SAEConfig] = {
    "relu": ReLU(d_sae=F),
    "gated": Gated(d_sae=F),
    "topk": TopK(d_sae=F, k=K),
    "abs-topk": AbsTopK(d_sae=F, k=K),
    "batch-topk": BatchTopK(d_sae=F, k=K),
    "jump-relu": JumpReLU(d_sae=F),
    "jump-relu-tanh": JumpReLU(d_sae=F, penalty="tanh"),
    "matryoshka-relu": Matryoshka(d_sae=F, base=ReLU()),
    "matryoshka-topk": Matryoshka(d_sae=F, base=TopK(k=K)),
    "matryoshka-batch-topk": Matryoshka(d_sae=F, base=BatchTopK(k=K)),
    "matryoshka-jump-relu": Matryoshka(d_sae=F, base=JumpReLU()),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_autoencoders(name):
    sae, x_BD = trained(CONFIGS[name]).float(), activations(rows=64).float()
    theirs = into_sae_lens.inference(sae)
    f_BF = sae.encode(x_BD)
    assert 0.02 < (f_BF != 0).double().mean() < 0.7  # there is something to tell apart
    assert_same(f_BF, theirs.encode(x_BD))
    assert_same(sae(x_BD), theirs(x_BD))


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", ["relu", "batch-topk", "jump-relu", "matryoshka-batch-topk"])
def test_transcoders(name, skip):
    config = CONFIGS[name]
    config = type(config)(**{**vars(config), "skip": skip})
    sae, x_BD = trained(config, d_out=D - 4).float(), activations(rows=64).float()
    theirs = into_sae_lens.inference(sae)
    assert_same(sae.encode(x_BD), theirs.encode(x_BD))
    assert_same(sae(x_BD), theirs(x_BD))


def test_without_b_dec_on_the_input_the_encoder_bias_takes_it_over():
    sae, x_BD = trained(ReLU(d_sae=F)), activations(rows=64)
    theirs = into_sae_lens.inference(sae, apply_b_dec_to_input=False)
    assert_apart(sae.encode(x_BD), theirs.encode(x_BD))
    with torch.no_grad():
        theirs.b_enc -= sae.b_dec @ sae.W_enc
    assert_same(sae.encode(x_BD), theirs.encode(x_BD))
    assert_same(sae(x_BD), theirs(x_BD))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_normalisation_folds_into_the_weights_the_same_way(name):
    sae, x_BD = trained(CONFIGS[name]), activations(rows=64)
    theirs = into_sae_lens.inference(sae)
    sae.fold(Normalisation("rms", 2.5))
    theirs.fold_activation_norm_scaling_factor(2.5)
    assert_same(sae.encode(x_BD), theirs.encode(x_BD))
    assert_same(sae(x_BD), theirs(x_BD))


def orthonormal_pursuit(k: int):
    """Matching pursuit over the coordinate axes and their opposites, b_dec zero."""
    sae = MatchingPursuit(d_sae=2 * D, k=k).build(D)
    with torch.no_grad():
        sae.W_dec.copy_(torch.cat([torch.eye(D), -torch.eye(D)]))
    return sae


def test_matching_pursuit_where_no_rule_ends_it_early():
    sae, x_BD = trained(MatchingPursuit(d_sae=F, k=K)).float(), activations().float()
    theirs = into_sae_lens.inference(sae, max_iterations=K, residual_threshold=0.0)
    f_BF = sae.encode(x_BD)
    full_B = (f_BF > 0).sum(1) == K
    assert full_B.sum() > 32
    assert_same(f_BF[full_B], theirs.encode(x_BD[full_B]))
    assert_same(sae(x_BD[full_B]), theirs(x_BD[full_B]))


def test_matching_pursuit_stops_at_a_length_of_its_own_not_at_a_share_of_x():
    sae = orthonormal_pursuit(k=3)
    x_BD = torch.zeros(1, D)
    x_BD[0, :3] = torch.tensor([3.0, 0.2, 0.1])  # ‖x‖² = 9.05: below 0.0905 nothing is left to explain
    theirs = into_sae_lens.inference(sae, max_iterations=3)
    assert (sae.encode(x_BD) > 0).sum() == 1
    assert (theirs.encode(x_BD) > 0).sum() == 3
    # Told to stop at that length, it is the same.
    theirs.cfg.residual_threshold = 0.1 * float(x_BD.norm())
    assert_same(sae.encode(x_BD), theirs.encode(x_BD))


def test_matching_pursuit_adds_a_repeated_latents_value_before_it_stops():
    sae = orthonormal_pursuit(k=3)
    with torch.no_grad():
        # Two rows at 120 degrees: after both, the first is the best match again.
        sae.W_dec[1, :2] = torch.tensor([-0.5, 0.75**0.5])
        sae.W_dec[2:] = torch.eye(D)[-1]
    x_BD = torch.zeros(1, D)
    x_BD[0, :2] = torch.tensor([2.0, 1.9])
    f_F, f_theirs_F = sae.encode(x_BD)[0], into_sae_lens.inference(sae, max_iterations=8).encode(x_BD)[0]
    residual_D = x_BD[0] - f_F @ sae.W_dec
    repeated = int((sae.W_dec @ residual_D).argmax())
    assert (f_F > 0).sum() == 2
    assert f_F[repeated] > 0
    expected_F = f_F.clone()
    expected_F[repeated] += sae.W_dec[repeated] @ residual_D
    assert_same(expected_F, f_theirs_F)
    assert_apart(f_F, f_theirs_F)
