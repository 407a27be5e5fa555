"""JumpReLU (Rajamanoharan et al. arXiv 2407.14435; tanh and the loss on dead latents: Anthropic, January 2025), with AuxK.

The jump has no useful derivative; the pseudo-derivatives of the paper stand in for it and are written out here by hand.
What is smooth (error, tanh, the loss on dead latents) is differentiated as a function of latents f, pre-activations π,
thresholds θ and decoder, each a variable of its own; the chain from f and π back to the encoder is then a few sums.

B batch, D d_in, O d_out, F d_sae.
"""

import torch
from torch import Tensor

from tests.conformance.reference.common import (
    Reference,
    Weights,
    aux_k,
    centred,
    error,
    frozen,
    norms,
    per_token,
    projections,
    reconstruction_loss,
)


def jump(pre: Tensor, w: Weights) -> Tensor:
    return torch.where(pre > torch.exp(w["log_threshold"]), pre, torch.zeros_like(pre))


def jumprelu(
    x: Tensor,
    y: Tensor | None,
    w: Weights,
    *,
    coefficient: float,
    penalty: str,
    bandwidth: float,
    target_l0: float | None = None,
    dead: Tensor | None = None,
    pre_activation_coefficient: float = 0.0,
    k_aux: int = 0,
    aux_coefficient: float = 0.0,
    prefixes: list[int] | None = None,
) -> Reference:
    w = frozen(w)
    B, width = per_token(x, y)
    pre_BF = projections(x, y, w) + w["b_enc"]
    theta_F = torch.exp(w["log_threshold"])
    above_BF = (pre_BF > theta_F).double()
    kernel_BF = ((pre_BF - theta_F).abs() / bandwidth < 0.5).double() / bandwidth

    smooth = {name: w[name].clone().requires_grad_() for name in ("W_dec", "b_dec", "W_skip") if name in w}
    f, pre, theta = (a.clone().requires_grad_() for a in (jump(pre_BF, w), pre_BF, theta_F))
    loss = reconstruction_loss(f, x, y, smooth, prefixes)
    if penalty == "tanh":
        loss = loss + coefficient / width**0.5 * torch.tanh(4 * f * norms(smooth)).sum() / B
    if dead is not None and pre_activation_coefficient:
        below = torch.clamp(theta - pre, min=0) * norms(smooth)
        loss = loss + pre_activation_coefficient * below[:, dead].sum() / B
    if dead is not None and aux_coefficient:
        held_error = error(jump(pre_BF, w), x, y, w)
        loss = loss + aux_coefficient * aux_k(held_error, pre, smooth, dead, k_aux)

    variables = [f, pre, theta, *smooth.values()]
    found = torch.autograd.grad(loss, variables, allow_unused=True)
    found = [torch.zeros_like(v) if g is None else g for v, g in zip(variables, found, strict=True)]
    from_f_BF, from_pre_BF, from_theta_F, *from_decoder = found
    loss = loss.detach()

    # ∂f/∂π = H, and with tanh the jump's share too; ∂f/∂θ = -(θ/ε)K
    to_pre_BF = from_pre_BF + from_f_BF * above_BF
    if penalty == "tanh":
        to_pre_BF = to_pre_BF + from_f_BF * theta_F * kernel_BF
    to_theta_F = from_theta_F - (from_f_BF * theta_F * kernel_BF).sum(0)
    # ∂H/∂θ = -(1/ε)K, ∂H/∂π = 0
    l0 = above_BF.sum() / B
    l0_to_theta_F = -kernel_BF.sum(0) / B
    if penalty == "step":
        loss = loss + coefficient / width**0.5 * l0
        to_theta_F = to_theta_F + coefficient / width**0.5 * l0_to_theta_F
    elif penalty == "target":
        loss = loss + coefficient * (l0 / target_l0 - 1) ** 2
        to_theta_F = to_theta_F + coefficient * 2 * (l0 / target_l0 - 1) / target_l0 * l0_to_theta_F

    gradients = dict(zip(smooth, from_decoder, strict=True))
    gradients["W_enc"] = torch.einsum("bd,bf->df", centred(x, y, w), to_pre_BF)
    gradients["b_enc"] = to_pre_BF.sum(0)
    gradients["log_threshold"] = to_theta_F * theta_F
    if y is None:
        gradients["b_dec"] = gradients["b_dec"] - torch.einsum("bf,df->d", to_pre_BF, w["W_enc"])
    return Reference(loss, {name: gradients[name] for name in w}, f.detach())
