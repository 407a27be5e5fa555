"""Linear layers of a model that only runs forward on the CPU, by the kernel that training's products run by.

Where that is oneDNN, MiniLM harvests twice as fast. It and torch's own differ in the last bits (1e-5 of activations around
1).
"""

from functools import partial

import torch
from torch import Tensor, nn

from saelight.ops.matmul import kernel, matmul


def use_onednn(model: nn.Module) -> bool:
    """Let every float32 `nn.Linear` of `model` on the CPU compute by oneDNN, where that is chosen. Whether any does."""
    if kernel() != "onednn":
        return False
    layers = [m for m in model.modules() if type(m) is nn.Linear and m.weight.dtype == torch.float32 and m.weight.is_cpu]
    for layer in layers:
        layer.forward = partial(_linear, layer)  # type: ignore[method-assign]  # of this layer alone
    return bool(layers)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    z = matmul(x.reshape(-1, x.shape[-1]), layer.weight.T, layer.bias)
    return z.view(*x.shape[:-1], layer.out_features)
