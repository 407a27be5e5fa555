"""Where training starts: directions, centres, scales."""

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities import CombinedLoader
from torch.nn.functional import cosine_similarity, normalize

from saelight.bank.start import sample
from saelight.errors import UserError
from saelight.saes import BatchTopK, GatedHardConcrete, HardConcrete, JumpReLU, MatchingPursuit, ReLU, TopK
from tests.support.activations import sparse_activations


def started(config, d_out=None):
    x = sparse_activations(512)
    y = sparse_activations(512, d_in=d_out, seed=5) if d_out else x
    sae = config.build(16, seed=1, d_out=d_out)
    sae.initialise(x, y if d_out else None)
    return sae, x, y


def test_a_tied_start_is_tied_up_to_its_scale():
    sae, _, _ = started(ReLU(d_sae=40))
    torch.testing.assert_close(cosine_similarity(sae.W_enc.T, sae.W_dec), torch.ones(40))
    untied, _, _ = started(ReLU(d_sae=40, tied_init=False))
    assert cosine_similarity(untied.W_enc.T, untied.W_dec).abs().mean() < 0.5


def test_datapoints_become_directions():
    sae, x, _ = started(TopK(d_sae=40, k=4, datapoint_init=1.0))
    centred = normalize(x - sae.b_dec, dim=1)
    torch.testing.assert_close((sae.W_dec @ centred.T).amax(1), torch.full((40,), 0.1))
    half, _, _ = started(TopK(d_sae=40, k=4, datapoint_init=0.5))
    none, _, _ = started(TopK(d_sae=40, k=4))
    near = [(s.W_dec @ centred.T).amax(1).mean() for s in (none, half, sae)]
    assert near[0] < near[1] < near[2]


def test_a_transcoders_latent_starts_from_one_token_on_both_sides():
    sae, x, y = started(TopK(d_sae=40, k=4, datapoint_init=1.0), d_out=10)
    token_out = (sae.W_dec @ normalize(y - sae.b_dec, dim=1).T).argmax(1)
    token_in = (normalize(sae.W_enc.T, dim=1) @ normalize(x - x.mean(0), dim=1).T).argmax(1)
    assert torch.equal(token_in, token_out)


def test_a_transcoder_starts_at_a_tenth_of_its_targets_size():
    for config in (ReLU(d_sae=200), JumpReLU(d_sae=200), TopK(d_sae=200, k=20)):
        sae, x, y = started(config, d_out=10)
        with torch.no_grad():
            size = float((sae(x) - sae.b_dec).norm() / (y - sae.b_dec).norm())
        assert size == pytest.approx(0.1, rel=0.02), config


def test_free_rows_of_topk_kinds_start_short_on_both_sides():
    for config in (TopK(d_sae=40, k=4), BatchTopK(d_sae=40, k=4)):
        sae, _, _ = started(config)
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.full((40,), 0.1))
        torch.testing.assert_close(sae.W_enc.norm(dim=0), torch.full((40,), 0.1))
    unit, _, _ = started(TopK(d_sae=40, k=4, decoder="unit"))
    torch.testing.assert_close(unit.W_dec.norm(dim=1), torch.ones(40))


def test_more_latents_than_data_points_is_well():
    sae = ReLU(d_sae=40, datapoint_init=1.0).build(16)
    sae.initialise(sparse_activations(7))
    assert sae.W_dec.isfinite().all()


@pytest.mark.parametrize("kind", ["mean", "zero"])
def test_centres(kind):
    sae, x, _ = started(ReLU(d_sae=40, b_dec_init=kind))
    torch.testing.assert_close(sae.b_dec.detach(), x.mean(0) if kind == "mean" else torch.zeros(16))


def test_scales_are_relative_to_the_fitted_start():
    plain, _, _ = started(ReLU(d_sae=40))
    scaled, _, _ = started(ReLU(d_sae=40, encoder_scale=0.5))
    torch.testing.assert_close(scaled.W_enc, 0.5 * plain.W_enc)
    apart, _, _ = started(ReLU(d_sae=40, decoder_scale=0.1, encoder_scale=3.0))
    torch.testing.assert_close(apart.W_dec.norm(dim=1), torch.full((40,), 0.1))
    torch.testing.assert_close(apart.W_enc, 3 * plain.W_enc)


def test_gates_start_able_to_tell_tokens_apart():
    """Their logits have the spread of unit encoder columns: what fits the sample is scaled elsewhere."""
    for config in (HardConcrete(d_sae=128), GatedHardConcrete(d_sae=128)):
        sae, x, _ = started(config)
        torch.testing.assert_close(sae.W_enc.norm(dim=0), torch.ones(128))
        fvu = (x - sae(x)).square().sum() / (x - x.mean(0)).square().sum()
        assert fvu < 0.5


@pytest.mark.parametrize(
    ("config", "d_out", "message"),
    [
        (TopK(k=4, decoder="unit", decoder_scale=0.5), None, "decoder rows are kept at norm 1"),
        (JumpReLU(decoder_scale=0.5), None, "decoder rows are kept at norm 1"),
        (ReLU(datapoint_init=1.5), None, r"datapoint_init must be in \[0, 1\]"),
        (ReLU(encoder_scale=0.0), None, "encoder_scale must be above 0"),
        (ReLU(skip=True), None, "skip is for transcoders"),
        (MatchingPursuit(k=4), 10, "MatchingPursuit cannot be a transcoder"),
        (MatchingPursuit(k=4, tied_init=False), None, "tied_init means nothing here"),
    ],
)
def test_starts_that_make_no_sense_are_refused(config, d_out, message):
    with pytest.raises(UserError, match=message):
        config.build(16, d_out=d_out)


class Recording(SingleDeviceStrategy):
    """A strategy that notes where what it is to send to the other ranks lies."""

    sent: tuple[str, ...] = ()

    def broadcast(self, obj, src=0):
        self.sent += (obj.device.type,)
        return super().broadcast(obj, src)


def test_a_loaders_sample_is_sent_in_the_hosts_memory_and_then_moved():
    trainer = L.Trainer(accelerator="cpu", strategy=Recording("cpu"), logger=False, enable_checkpointing=False)
    trainer.fit_loop._combined_loader = CombinedLoader([torch.randn(5, 4), torch.randn(5, 4)])
    x_ND, y_ND = sample(trainer, torch.device("meta"), 7)
    assert (x_ND.shape, x_ND.device.type, y_ND.device.type) == ((7, 4), "meta", "meta")
    assert trainer.strategy.sent == ("cpu", "cpu")
