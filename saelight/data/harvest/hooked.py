"""Outputs of chosen modules of a model, computing nothing beyond the last of them.

Shapes: B windows, T tokens, D width of a module's output.
"""

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saelight.errors import UserError


class _Enough(Exception):
    """Every hook has its output."""


class Hooked:
    """Runs `model` and returns what the modules at dotted paths `hooks` put out (of a tuple, its first element).

    Raises `UserError` for a path that is no module of the model, with the nearest that are.
    """

    def __init__(self, model: nn.Module, hooks: Sequence[str]) -> None:
        modules = dict(model.named_modules())
        for hook in hooks:
            if not hook or hook not in modules:
                near = difflib.get_close_matches(hook, [name for name in modules if name], n=3, cutoff=0.3)
                raise UserError(f"the model has no module {hook!r}; nearest: {', '.join(near) or next(iter(modules))}")
        self.model, self.hooks = model, list(hooks)
        self._outputs: dict[str, Tensor] = {}
        for hook in self.hooks:
            modules[hook].register_forward_hook(lambda _module, _args, output, hook=hook: self._keep(hook, output))

    def _keep(self, hook: str, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        if not isinstance(output, Tensor) or output.dim() != 3:
            kind = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise UserError(f"module {hook!r} puts out {kind}; hook one that puts out (batch, tokens, width)")
        self._outputs[hook] = output
        if len(self._outputs) == len(self.hooks):
            raise _Enough

    @torch.inference_mode()
    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Each hook's output: (B, T, D)."""
        self._outputs = {}
        try:
            self.model(**inputs)
        except _Enough:
            return self._outputs
        silent = [hook for hook in self.hooks if hook not in self._outputs]
        raise UserError(f"module {silent[0]!r} did not run in the model's forward; hook another")
