"""AdamW whose second moments belong to latents, and whose encoder gradients are whitened.

    g̃ = C^{-a} g (W_enc alone),  m ← β₁ m + (1 - β₁) g̃,  v_i ← β₂ v_i + (1 - β₂) mean_D g̃_i²,  w ← w - lr · m̂ / (√v̂ + ε)

A latent's decoder row d_i has the curvature Σ f_i² in every direction, and its encoder column Σ_{i fires} x xᵀ ‖d_i‖²: no
entry of a row deserves a step of its own, as AdamW gives, but the input's own covariance C has to be undone where x is
multiplied. One second moment a block is Adam-mini's (arXiv 2406.16793), a preconditioner from the layer's input K-FAC's
(arXiv 1503.05671). What it brings is in docs/quality.md; it holds half as much state as AdamW.
Shapes: N sample rows, D d_in (d_out of W_dec), F d_sae.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelight.errors import UserError
from saelight.ops.matmul import matmul
from saelight.saes.plain_data import as_type

_POWER = 0.75  # a: 1 undoes C wholly, and is too much where it is known from few rows
_DAMPING = 0.01  # of C's mean eigenvalue
_OWN = ("name", "betas", "weight_decay", "width_dim", "whitened")  # settings of a group that tell what it is of


class LatentAdamW(torch.optim.AdamW):
    """torch's fused AdamW, but for groups that say along which dimension a latent's weights lie (`width_dim`, or None).

    Args:
        groups: Parameter groups; beside AdamW's own settings they have `width_dim` and `whitened`.
        eps: ε.
        whitening: C^{-a} (D, D), of groups that say `whitened`; it may be filled in until the first step.
    """

    def __init__(self, groups: list[dict[str, Any]], eps: float, whitening: Tensor | None) -> None:
        super().__init__(groups, eps=eps, fused=True)
        self.whitening = whitening

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Not AdamW's, which looks for the tensor `step` of its own states in every one.
        torch.optim.Optimizer.__setstate__(self, state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """torch's, which believes all that it is given: here a group's settings stay this bank's, and moments have to fit.

        Raises:
            UserError: for other groups than this bank's, and for moments of other shapes than its parameters'.
        """
        own = [{key: value for key, value in group.items() if key not in ("params", "lr")} for group in self.param_groups]
        super().load_state_dict(state_dict)
        have_moments: dict[str, bool] = {}
        for group, settings in zip(self.param_groups, own, strict=True):
            if any(group.get(key) != settings[key] for key in _OWN):
                raise UserError("the checkpoint's optimizer has other groups than this bank's: go on with its own config")
            group.update(settings)
            if not 0 <= as_type(group.get("lr"), float, "the checkpoint's lr") < math.inf:
                raise UserError(f"the checkpoint's lr of SAE {group['sae']!r} is {group['lr']}")
            for p in group["params"]:
                # An SAE that was quarantined at the first step has none at all.
                if have_moments.setdefault(group["sae"], bool(self.state.get(p))) != bool(self.state.get(p)):
                    raise UserError(f"the checkpoint's optimizer lacks moments of SAE {group['sae']!r}")
                if self.state.get(p):
                    _check_moments(p, group, self.state[p])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        everything = self.param_groups
        try:
            self.param_groups = [group for group in everything if group["width_dim"] is None]
            super().step()
        finally:
            self.param_groups = everything
        together: dict[tuple[Any, ...], list[_Latents]] = {}
        for group in everything:
            if group["width_dim"] is not None:
                # An SAE's two matrices are stepped together: half the launches.
                alike = together.setdefault((group["sae"], *group["betas"]), [])
                alike += [self._latents(p, group) for p in group["params"] if p.grad is not None]
        for (_, beta1, beta2), latents in together.items():
            if latents:
                _step_latents(latents, beta1, beta2)
        return loss

    def _latents(self, p: Tensor, group: dict[str, Any]) -> "_Latents":
        """A matrix with its gradient and its moments, which are made where there are none."""
        width_dim, state, gradient = group["width_dim"], self.state[p], p.grad
        assert gradient is not None
        if not state:
            state["steps"] = 0
            state["exp_avg"] = torch.zeros_like(p)
            state["exp_avg_sq"] = torch.zeros_like(p.narrow(width_dim, 0, 1), memory_format=torch.contiguous_format)
        if group["whitened"] and self.whitening is not None:
            # (D, F) lies in memory as (F, D).
            gradient = matmul(gradient.T, self.whitening).T
        state["steps"] += 1
        return _Latents(p, gradient, state["exp_avg"], state["exp_avg_sq"], state["steps"], group)


class _Latents(NamedTuple):
    p: Tensor
    gradient: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor
    steps: int
    group: dict[str, Any]


def _step_latents(latents: list[_Latents], beta1: float, beta2: float) -> None:
    """One step of some matrices of the same betas. No temporary has a matrix' size: a norm is one pass."""
    moments, variances = [of.exp_avg for of in latents], [of.exp_avg_sq for of in latents]
    torch._foreach_lerp_(moments, [of.gradient for of in latents], 1 - beta1)
    width_dims = [of.group["width_dim"] for of in latents]
    squares = [
        torch.linalg.vector_norm(of.gradient, dim=dim, keepdim=True) for of, dim in zip(latents, width_dims, strict=True)
    ]
    torch._foreach_mul_(squares, squares)
    torch._foreach_div_(squares, [float(of.p.shape[dim]) for of, dim in zip(latents, width_dims, strict=True)])
    torch._foreach_lerp_(variances, squares, 1 - beta2)
    sizes = torch._foreach_div(variances, [1 - beta2**of.steps for of in latents])
    torch._foreach_sqrt_(sizes)
    torch._foreach_add_(sizes, [of.group["eps"] for of in latents])
    for of, size in zip(latents, sizes, strict=True):
        lr, decay = of.group["lr"], of.group["weight_decay"]
        if decay:
            of.p.mul_(1 - lr * decay)
        of.p.addcdiv_(of.exp_avg, size, value=-lr / (1 - beta1**of.steps))


def _check_moments(p: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    """Raise `UserError` for moments that are not of this parameter."""
    expected: dict[str, Any] = {"step": [], "exp_avg": list(p.shape), "exp_avg_sq": list(p.shape)}
    if group["width_dim"] is not None:
        of_latents = list(p.narrow(group["width_dim"], 0, 1).shape)
        expected = {"steps": int, "exp_avg": list(p.shape), "exp_avg_sq": of_latents}
    found = {name: list(value.shape) if isinstance(value, Tensor) else type(value) for name, value in state.items()}
    if found != expected:
        raise UserError(f"the checkpoint's optimizer holds {found} of SAE {group['sae']!r}, not {expected}")


def whitening_of(x_ND: Tensor) -> Tensor:
    """C^{-a} (D, D) of a sample's covariance C about its mean, damped, in float32."""
    centred_ND = x_ND.double() - x_ND.double().mean(0)
    values_D, vectors_DD = torch.linalg.eigh(centred_ND.T @ centred_ND / len(x_ND))
    values_D = values_D.clamp_min(0) / values_D.mean() + _DAMPING
    return (vectors_DD * values_D.pow(-_POWER) @ vectors_DD.T).to(x_ND.dtype)
