"""Outputs of chosen modules of a model, computing nothing beyond the last of them.

Shapes: B windows, T tokens, D width of a module's output.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saelight.errors import UserError

_TEXT_TOWER = "text_model."


class _Enough(Exception):
    """Every hook has its output."""


def no_module(hook: str, modules: Iterable[str]) -> UserError:
    """The refusal of a path that is none of a model's modules."""
    names = [name for name in modules if name]
    near = difflib.get_close_matches(hook, names, n=3, cutoff=0.3)
    return UserError(f"the model has no module {hook!r}; nearest: {', '.join(near or names[:3])}")


class Hooked:
    """Runs `model` and returns what the modules at dotted paths `hooks` put out (of a tuple, its first element); of a module
    that runs several times in a pass, what it puts out first.

    Raises `UserError` for a path that is no module of the model, with the nearest that are.
    """

    def __init__(self, model: nn.Module, hooks: Sequence[str]) -> None:
        modules = dict(model.named_modules())
        for hook in hooks:
            if not hook or hook not in modules:
                raise no_module(hook, modules)
        # A model of text and images (CLIP) wants both.
        towers = all(hook.startswith(_TEXT_TOWER) for hook in hooks) and modules.get(_TEXT_TOWER[:-1])
        self.model, self.hooks = towers or model, list(hooks)
        self._outputs: dict[str, Tensor] = {}
        self._runs: Counter[str] | None = None
        self._shape: tuple[int, ...] = ()
        for hook in self.hooks:
            modules[hook].register_forward_hook(lambda _module, _args, output, hook=hook: self._keep(hook, output))

    def _keep(self, hook: str, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        if not isinstance(output, Tensor) or output.dim() != 3 or tuple(output.shape[:2]) != self._shape:
            kind = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"module {hook!r} puts out {kind} for {self._shape[0]} windows of {self._shape[1]} tokens; hook one that "
                "puts out (batch, tokens, width)"
            )
        self._outputs.setdefault(hook, output)
        if self._runs is not None:
            self._runs[hook] += 1
        elif len(self._outputs) == len(self.hooks):
            raise _Enough

    def probe(self, token: int, context: int) -> dict[str, int]:
        """How often each hook's module runs in a pass, by one pass over two windows of a token.

        Raises:
            UserError: The model does not run as far as the hooks, or they put out something else than activations.
        """
        place = next(self.model.parameters()).device
        ids_BT = torch.full((2, context), token, device=place)
        self._runs = Counter()
        try:
            self(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT))
            return dict(self._runs)
        finally:
            self._runs = None

    @torch.inference_mode()
    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Each hook's output: (B, T, D)."""
        self._outputs, self._shape = {}, tuple(inputs["input_ids"].shape)
        reason = ""
        try:
            self.model(**inputs)
        except _Enough:
            pass
        except UserError:
            raise
        except Exception as error:  # whatever a model raises without its other inputs, or beyond its positions
            reason = f" ({str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__})"
            if isinstance(error, torch.OutOfMemoryError):
                raise UserError(f"the device has no room for a batch{reason}; lower batch_size") from error
        # What fails beyond the last hook does not matter.
        if silent := [hook for hook in self.hooks if hook not in self._outputs]:
            raise UserError(f"module {silent[0]!r} did not run in the model's forward on text alone{reason}; hook another")
        return self._outputs
