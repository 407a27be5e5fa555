"""Each variant's training loss, gradients and evaluation-mode latents, from the papers, with no line of the library's.

`REFERENCES[variant](x, y, weights, **settings)` with y None for an autoencoder, else a transcoder's target;
`ENCODERS[variant](x, y, weights, **settings)` for the latents of encode(), y there only saying which of the two it is.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.conformance.reference import hard_concrete, jumprelu, penalised, pursuit, topk
from tests.conformance.reference.common import Reference, Weights, projections


def matryoshka(x: Tensor, y: Tensor | None, w: Weights, *, base: str, prefixes: list[int], **settings: Any) -> Reference:
    """Nested prefixes (Bussmann et al. arXiv 2503.17547) of another variant: only the reconstruction term differs."""
    assert base in ("topk", "batch_topk", "relu", "jumprelu")
    assert prefixes == sorted(set(prefixes))
    assert prefixes[-1] == w["W_dec"].shape[0]
    return REFERENCES[base](x, y, w, prefixes=prefixes, **settings)


REFERENCES: dict[str, Callable[..., Reference]] = {
    "relu": penalised.relu,
    "gated": penalised.gated,
    "hard_concrete": hard_concrete.hard_concrete,
    "gated_hard_concrete": hard_concrete.gated_hard_concrete,
    "topk": topk.topk,
    "abs_topk": topk.abs_topk,
    "batch_topk": topk.batch_topk,
    "jumprelu": jumprelu.jumprelu,
    "matryoshka": matryoshka,
    "matching_pursuit": pursuit.matching_pursuit,
}


def _pre(x: Tensor, y: Tensor | None, w: Weights) -> Tensor:
    return projections(x, y, w) + w["b_enc"]


def _hard_concrete(x: Tensor, y: Tensor | None, w: Weights) -> Tensor:
    gates = hard_concrete.eval_gates(hard_concrete.gate_logits(x, y, w))
    return gates * torch.clamp(projections(x, y, w) + w["b_mag"], min=0)


def _gated_hard_concrete(x: Tensor, y: Tensor | None, w: Weights) -> Tensor:
    gates = hard_concrete.eval_gates(projections(x, y, w) + w["b_gate"])
    return gates * hard_concrete.gated_magnitudes(x, y, w)


def _batch_topk(x: Tensor, y: Tensor | None, w: Weights, *, threshold: float) -> Tensor:
    f = torch.clamp(_pre(x, y, w), min=0)
    return torch.where(f * w["W_dec"].norm(dim=1) > threshold, f, torch.zeros_like(f))


ENCODERS: dict[str, Callable[..., Tensor]] = {
    "relu": penalised.relu_latents,
    "gated": lambda x, y, w: penalised.gated_paths(x, y, w)[1],
    "hard_concrete": _hard_concrete,
    "gated_hard_concrete": _gated_hard_concrete,
    "topk": lambda x, y, w, *, k: topk.top_latents(_pre(x, y, w), k, w["W_dec"].norm(dim=1)),
    "abs_topk": lambda x, y, w, *, k: topk.abs_top_latents(_pre(x, y, w), k, w["W_dec"].norm(dim=1)),
    "batch_topk": _batch_topk,
    "jumprelu": lambda x, y, w: jumprelu.jump(_pre(x, y, w), w),
    "matryoshka": lambda x, y, w, *, base, **settings: ENCODERS[base](x, y, w, **settings),
    "matching_pursuit": lambda x, y, w, *, k: pursuit.pursuit_latents(x, w, k),
}

__all__ = ["ENCODERS", "REFERENCES", "Reference", "Weights"]
