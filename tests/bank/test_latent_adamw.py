"""One second moment for a latent, and steps of W_enc without the activations' covariance.

D d_in, F d_sae, N sample rows.
"""

import torch

from saelight.bank.latent_adamw import LatentAdamW, whitening_of
from saelight.bank.optimizer import adamw
from saelight.saes import BatchTopK, TopK
from saelight.schedules import Horizon, Schedule
from tests.support.activations import sparse_activations
from tests.support.banks import assert_equal, bank, fit, weights

STEADY = Schedule(kind="constant", warmup=0)


def stretched(rows: int, d: int = 6) -> torch.Tensor:
    """Rows whose directions differ in spread by far, and whose mean is not 0."""
    x_ND = torch.randn(rows, d, generator=torch.Generator().manual_seed(0)) * torch.logspace(-1, 1, d)
    mixed_DD, _ = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(1)))
    return x_ND @ mixed_DD + 3.0


def test_steps_are_the_formula():
    sae = TopK(d_sae=5, k=2, lr=0.01, betas=(0.7, 0.9), weight_decay=0.1, schedule=STEADY).build(3)
    whitening_DD = whitening_of(stretched(100, 3))
    optimizer = adamw([("a", sae)], Horizon(10, 10, 1), whitening_DD)["optimizer"]
    expected = {name: p.detach().double().clone() for name, p in sae.named_parameters()}
    m = {name: torch.zeros_like(w) for name, w in expected.items()}
    v = {name: torch.zeros(5).double() for name in ("W_enc", "W_dec")}
    g = torch.Generator().manual_seed(2)
    for t in range(1, 6):
        for name, p in sae.named_parameters():
            p.grad = torch.randn(p.shape, generator=g)
            if name in v:
                gradient = p.grad.double() if name == "W_dec" else whitening_DD.double() @ p.grad.double()
                dim = 1 if name == "W_dec" else 0
                m[name] = 0.7 * m[name] + 0.3 * gradient
                v[name] = 0.9 * v[name] + 0.1 * gradient.square().mean(dim)
                size = (v[name] / (1 - 0.9**t)).sqrt().unsqueeze(dim)
                # Free rows decay as W_enc does.
                expected[name] = expected[name] * (1 - 0.01 * 0.1) - 0.01 * m[name] / (1 - 0.7**t) / size
        optimizer.step()
    for name in v:
        torch.testing.assert_close(dict(sae.named_parameters())[name].detach().double(), expected[name])


def test_adamw_is_torchs_own():
    saes = [TopK(d_sae=5, k=2, lr=0.01, optimizer=name).build(3) for name in ("adamw", "latent_adamw")]
    reference = TopK(d_sae=5, k=2).build(3)
    theirs = torch.optim.AdamW(reference.parameters(), 0.01, (0.9, 0.999), 6.25e-10, weight_decay=0.0, fused=True)
    ours = [adamw([("a", sae)], Horizon(10, 10, 1))["optimizer"] for sae in saes]
    for optimizer in ours:
        for group in optimizer.param_groups:
            group["lr"] = 0.01  # past the warm-up
    for step in range(5):
        g = torch.Generator().manual_seed(step)
        for grads in zip(*(sae.parameters() for sae in (reference, *saes)), strict=True):
            gradient = torch.randn(grads[0].shape, generator=g)
            for p in grads:
                p.grad = gradient.clone()
        for optimizer in (theirs, *ours):
            optimizer.step()
    for name, p in reference.named_parameters():
        whole, latents = (dict(sae.named_parameters())[name] for sae in saes)
        assert torch.equal(whole, p)
        assert not torch.equal(latents, p)


def test_whitening_undoes_the_covariance_of_the_sample():
    x_ND = stretched(20_000)
    covariance_DD = torch.cov(x_ND.T, correction=0).double()
    whitening_DD = whitening_of(x_ND).double()
    values_D = torch.linalg.eigvalsh(covariance_DD)
    expected_D = (values_D / values_D.mean() + 0.01).pow(-0.75)
    torch.testing.assert_close(torch.linalg.eigvalsh(whitening_DD), expected_D.sort().values, rtol=1e-4, atol=0)
    torch.testing.assert_close(whitening_DD @ covariance_DD, covariance_DD @ whitening_DD, rtol=1e-4, atol=1e-4)


def test_whitening_is_the_banks_and_in_its_checkpoints():
    x_ND = sparse_activations(1600)
    mixed = bank({"a": BatchTopK(d_sae=24, k=3), "plain": TopK(d_sae=24, k=3, optimizer="adamw")})
    fit(mixed, x_ND)
    assert mixed.whitening.any()
    assert "whitening" in mixed.state_dict()
    alone = bank({"plain": TopK(d_sae=24, k=3, optimizer="adamw")})
    fit(alone, x_ND)
    assert alone.whitening is None
    assert "whitening" not in alone.state_dict()
    assert_equal(weights(mixed, "plain"), weights(alone, "plain"))


def test_state_is_one_number_a_latent():
    sae = TopK(d_sae=5, k=2).build(3)
    optimizer = adamw([("a", sae)], Horizon(10, 10, 1), torch.eye(3))["optimizer"]
    assert isinstance(optimizer, LatentAdamW)
    for p in sae.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert optimizer.state[sae.W_enc]["exp_avg_sq"].shape == (1, 5)
    assert optimizer.state[sae.W_dec]["exp_avg_sq"].shape == (5, 1)
