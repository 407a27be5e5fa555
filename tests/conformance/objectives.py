"""What a reference needs to know of an SAE: its variant's name and settings, read from its configuration.

B batch, D d_in, O d_out, F d_sae.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from saelight.saes import (
    SAE,
    AbsTopK,
    BatchTopK,
    Gated,
    GatedHardConcrete,
    HardConcrete,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    Moment,
    Penalised,
    ReLU,
    SAEConfig,
    TopK,
)
from saelight.saes.dead_latents import teach_dead
from saelight.saes.penalised import PenalisedSAE
from saelight.schedules import Horizon
from tests.conformance.reference import ENCODERS, REFERENCES, Reference
from tests.support.activations import sparse_activations
from tests.support.variants import VARIANTS

MOMENT = Moment(50, Horizon(100, 100, 64))
SIDES = ["autoencoder", "transcoder", "skip"]
D_IN, D_OUT = 16, 10

# Wide enough for many pre-activations to lie within the kernel, high enough for some to lie below the threshold.
JUMP = {"d_sae": 24, "bandwidth": 0.6, "initial_threshold": 0.3}
ON_DEAD = {"pre_activation_coefficient": 0.2, "dead_after": 256}
AUX_K = {"aux_coefficient": 0.5, "k_aux": 4, "dead_after": 256}
TOP = {"k": 3, "k_aux": 4, "dead_after": 256}
OPTIONS: dict[str, SAEConfig] = {
    **VARIANTS,
    "relu-p": ReLU(d_sae=24, sparsity=0.3, p=0.5),
    "gated-aux": Gated(d_sae=24, sparsity=0.3, aux_coefficient=0.4),
    "hard-concrete-beta": HardConcrete(d_sae=24, sparsity=0.3, initial_beta=0.4),
    "hard-concrete-free-beta": HardConcrete(d_sae=24, sparsity=0.3, initial_beta=0.4, input_dependent=False),
    "gated-hard-concrete-aux": GatedHardConcrete(d_sae=24, sparsity=0.3, initial_beta=0.4, aux_coefficient=0.4),
    "topk-aux": TopK(d_sae=24, aux_coefficient=0.5, **TOP),
    "topk-all": TopK(d_sae=24, k=24, k_aux=24, dead_after=256),
    "abs-topk-aux": AbsTopK(d_sae=24, aux_coefficient=0.5, **TOP),
    "batch-topk-aux": BatchTopK(d_sae=24, aux_coefficient=0.5, **TOP),
    "jumprelu-step": JumpReLU(sparsity=0.3, penalty="step", **JUMP),
    "jumprelu-step-on-dead": JumpReLU(sparsity=0.3, penalty="step", **JUMP, **ON_DEAD),
    "jumprelu-tanh": JumpReLU(sparsity=0.3, penalty="tanh", **JUMP),
    "jumprelu-tanh-on-dead": JumpReLU(sparsity=0.3, penalty="tanh", **JUMP, **ON_DEAD),
    "jumprelu-step-aux": JumpReLU(sparsity=0.3, penalty="step", **JUMP, **AUX_K),
    "jumprelu-tanh-aux": JumpReLU(sparsity=0.3, penalty="tanh", **JUMP, **AUX_K),
    "jumprelu-target": JumpReLU(target_l0=3.0, penalty="target", **JUMP, **ON_DEAD),
    "matryoshka-topk": Matryoshka(d_sae=24, base=TopK(k=3, k_aux=4), dead_after=256),
    "matryoshka-batch-topk": Matryoshka(d_sae=24, base=BatchTopK(k=3, k_aux=4), dead_after=256, random_prefixes=4),
    "matryoshka-relu": Matryoshka(d_sae=24, base=ReLU(sparsity=0.3)),
    "matryoshka-relu-p": Matryoshka(d_sae=24, base=ReLU(sparsity=0.3, p=0.5), random_prefixes=4),
    "matryoshka-jumprelu-step": Matryoshka(
        d_sae=24, base=JumpReLU(sparsity=0.3, bandwidth=0.6, initial_threshold=0.3), random_prefixes=4
    ),
    "matryoshka-jumprelu-tanh": Matryoshka(
        d_sae=24, base=JumpReLU(sparsity=0.3, penalty="tanh", bandwidth=0.6, initial_threshold=0.3)
    ),
    "matryoshka-jumprelu-target": Matryoshka(
        d_sae=24, base=JumpReLU(target_l0=3.0, penalty="target", bandwidth=0.6, initial_threshold=0.3)
    ),
}
RUNS = [
    (option, side)
    for option, config in OPTIONS.items()
    for side in SIDES
    if side == "autoencoder" or not isinstance(config, MatchingPursuit)
]
NAMES = {
    ReLU: "relu",
    Gated: "gated",
    HardConcrete: "hard_concrete",
    GatedHardConcrete: "gated_hard_concrete",
    TopK: "topk",
    AbsTopK: "abs_topk",
    BatchTopK: "batch_topk",
    JumpReLU: "jumprelu",
    Matryoshka: "matryoshka",
    MatchingPursuit: "matching_pursuit",
}


def built(config: SAEConfig, side: str = "autoencoder", d_in: int = D_IN, d_out: int = D_OUT, seed: int = 3) -> SAE:
    """The SAE away from its symmetric start, in float64 so that no selection hangs on rounding."""
    config = replace(config, skip=side == "skip")
    sae = config.build(d_in, seed=seed, d_out=None if side == "autoencoder" else d_out).double()
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in sae.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g, dtype=p.dtype))
        if isinstance(config, MatchingPursuit):
            # Its residuals shrink by what was taken only where the rows are unit, as they are after every step.
            sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    if isinstance(sae, PenalisedSAE):
        sae.is_sparse.fill_(SAE.sparse_below > 1)
    return sae


def batch(side: str, rows: int = 12, d_in: int = D_IN, d_out: int = D_OUT) -> tuple[Tensor, Tensor | None]:
    """x and a transcoder's y, else None."""
    x = sparse_activations(rows, d_in).double()
    return x, None if side == "autoencoder" else sparse_activations(rows, d_out, seed=1).double()


def kill(sae: SAE, every: int) -> None:
    """Every so-manieth latent dies; none for 0."""
    if every:
        sae.tokens_since_fired[::every] = 10**9
        teach_dead(sae)


def settings(config: SAEConfig, sae: SAE, x: Tensor, moment: Moment) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if isinstance(config, Penalised):
        given["coefficient"] = float(sae.sparsity(moment)) if config.sparsity is None else config.sparsity
    match config:
        case Matryoshka(base=base):
            return settings(base, sae, x, moment) | {"base": NAMES[type(base)], "prefixes": sae.prefixes(moment)}
        case ReLU():
            given["p"] = config.p if config.p_end is None else sae.power(moment.step, moment.horizon)
        case Gated():
            given["aux_coefficient"] = config.aux_coefficient
        case HardConcrete() | GatedHardConcrete():
            empty_BF = torch.empty(x.shape[0], sae.d_sae, dtype=x.dtype)
            given |= {"noise": sae.noise(empty_BF, moment), "beta": config.initial_beta}
            if isinstance(config, GatedHardConcrete):
                given["aux_coefficient"] = config.aux_coefficient
        case TopK():
            given |= {"k": config.k, "k_aux": config.k_aux or max(1, sae.d_out // 2), "dead": sae.dead()}
            given["aux_coefficient"] = config.aux_coefficient
        case JumpReLU():
            default = 2.0 if config.penalty == "tanh" else 0.025 * sae.d_in**0.5
            given |= {
                "penalty": config.penalty,
                "bandwidth": config.bandwidth or default,
                "target_l0": config.target_l0,
                "dead": sae.dead(),
                "pre_activation_coefficient": config.pre_activation_coefficient,
                "k_aux": config.k_aux or max(1, sae.d_out // 2),
                "aux_coefficient": 0.0 if config.pre_activation_coefficient else config.aux_coefficient or 1 / 32,
            }
        case MatchingPursuit():
            given["k"] = config.k
    return given


def weights(sae: SAE) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in sae.named_parameters()}


def expected(config: SAEConfig, sae: SAE, x: Tensor, y: Tensor | None, moment: Moment = MOMENT) -> Reference:
    return REFERENCES[NAMES[type(config)]](x, y, weights(sae), **settings(config, sae, x, moment))


def expected_latents(config: SAEConfig, sae: SAE, x: Tensor, y: Tensor | None) -> Tensor:
    """Of evaluation."""
    inner = config.base if isinstance(config, Matryoshka) else config
    name = NAMES[type(inner)]
    given = {"threshold": float(sae.threshold)} if name == "batch_topk" else {"k": inner.k} if hasattr(inner, "k") else {}
    return ENCODERS[name](x, y, weights(sae), **given)


def assert_agrees(sae: SAE, x: Tensor, y: Tensor | None, want: Reference, moment: Moment = MOMENT) -> None:
    """Loss and every gradient, relative to each gradient's largest entry."""
    rtol = 1e-8
    total = sae.losses(x, x if y is None else y, moment).total
    torch.testing.assert_close(total, want.loss, rtol=rtol, atol=1e-14)
    got = torch.autograd.grad(total, list(sae.parameters()), allow_unused=True)
    for (name, p), gradient in zip(sae.named_parameters(), got, strict=True):
        gradient = torch.zeros_like(p) if gradient is None else gradient
        atol = rtol * float(want.gradients[name].abs().max()) + 1e-14
        torch.testing.assert_close(gradient, want.gradients[name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
