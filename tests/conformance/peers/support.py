"""What every comparison with another library needs: the library, an SAE whose weights are nowhere at their start, a batch.

B batch, D d_in, F d_sae.
"""

import importlib
import os
import warnings
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from saelight.saes import SAE, Losses, Matryoshka, Moment, SAEConfig, TopK
from saelight.saes.dead_latents import teach_dead
from saelight.schedules import Horizon
from tests.support.activations import sparse_activations

D, F, K = 16, 40, 4
TOLERANCE = 1e-5
MOMENT = Moment(step=500, horizon=Horizon(steps=1000, steps_per_epoch=1000, tokens_per_step=256))
"""Half of training: every warm-up is over."""
DEAD = torch.arange(F) % 3 == 0
"""The latents that auxiliary losses are told are dead."""

# sparsify would decode CPU tensors by a GPU kernel where Triton is installed.
os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")


def peer(name: str) -> ModuleType:
    """A module of another library. Where it is missing the tests are skipped; under `make conformance-peers` they fail."""
    if os.environ.get("SAELIGHT_PEERS") == "required":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's own deprecations
            return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed: run `make conformance-peers`")


def variant(sae: SAE) -> type[SAEConfig]:
    """What encodes and decodes: of a Matryoshka SAE the variant underneath."""
    return type(sae.config.base if isinstance(sae.config, Matryoshka) else sae.config)


def activations(d: int = D, rows: int = 256, seed: int = 0) -> Tensor:
    """A batch (B, d), float64, off centre as a language model's is."""
    return (0.3 + sparse_activations(rows, d, seed=seed)).double()


def unit_rows(config: SAEConfig) -> SAEConfig:
    """A TopK kind with rows of norm 1; others as they are."""
    if isinstance(config, Matryoshka):
        return replace(config, base=unit_rows(config.base))
    return replace(config, decoder="unit") if isinstance(config, TopK) else config


@torch.no_grad()
def trained(config: SAEConfig, d_out: int | None = None, seed: int = 0) -> SAE:
    """An SAE as training leaves it, float64: no bias zero, encoder and decoder apart, some latents dead.

    Decoder rows have norm 1 where the variant holds them there or can, and nowhere else: no other library weighs latents by
    free rows as the TopK kinds do here until they are published. Thresholds cut in at a tenth of the
    activations' scale and up, so that they decide over many latents.
    """
    sae = unit_rows(config).build(D, seed=seed, d_out=d_out).double()
    g = torch.Generator().manual_seed(seed)
    for name, parameter in sae.named_parameters():
        if name == "log_threshold":
            parameter.copy_((0.1 + 0.4 * torch.rand(parameter.shape, generator=g)).log())
        else:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    sae.constrain_weights()
    if hasattr(sae, "threshold_updates"):
        sae.threshold.fill_(0.4)
    sae.tokens_since_fired.copy_(torch.where(DEAD, sae.dead_after, 0))
    teach_dead(sae)
    return sae


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    """Equal to 1e-5, absolutely and relatively."""
    torch.testing.assert_close(ours, theirs.to(ours.dtype), atol=TOLERANCE, rtol=TOLERANCE)


def assert_apart(ours: Tensor, theirs: Tensor) -> None:
    """Apart by far more than rounding: a deviation that is named must be there."""
    assert (ours - theirs).abs().max() > 1e-3 * ours.abs().max()


def assert_same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor], but: tuple[str, ...] = ()) -> None:
    """Every parameter's gradient is there and the same, except those of the parameters in `but`."""
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - set(but):
        assert ours[name].abs().max() > 0
        assert_same(ours[name], theirs[name])


def parameter_gradients(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """The gradient of each parameter by name, 0 where the loss does not depend on it."""
    values = torch.autograd.grad(
        loss, list(module.parameters()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return {name: value for (name, _), value in zip(module.named_parameters(), values, strict=True)}


def losses_and_gradients(sae: SAE, x_BD: Tensor, moment: Moment = MOMENT) -> tuple[Losses, dict[str, Tensor]]:
    """saelight's objective on one batch, and the gradient of each parameter; both times D, as others sum ‖x - x̂‖²."""
    losses = sae.losses(x_BD, x_BD, moment)
    losses = losses._replace(total=D * losses.total)
    return losses, parameter_gradients(losses.total, sae)
