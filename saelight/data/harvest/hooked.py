"""What chosen modules of a model put out or are given, computing nothing beyond the last of them.

Shapes: B windows or images, T tokens, D width.
"""

import contextlib
import difflib
import inspect
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from saelight import hook_names
from saelight.errors import UserError

_INPUT, _OUTPUT = ".input", ".output"
TEXT_TOWERS, IMAGE_TOWERS = ("text_model",), ("vision_model", "vision_tower", "visual")
"""Parts of models of text and images that run on one of the two alone."""
_STARTS = ("decoder_start_token_id", "pad_token_id")


class _Enough(Exception):
    """Every hook has its rows."""


class _Place(NamedTuple):
    """A place in a model."""

    module: str
    """Dotted path."""
    given: bool
    """Whether it is what the module is given, not what it puts out."""

    @property
    def path(self) -> str:
        return self.module + _INPUT * self.given


def tower(hooks: Sequence[str], kinds: Sequence[str] = (*TEXT_TOWERS, *IMAGE_TOWERS)) -> str | None:
    """The path of the tower that all hooks are in, None where there is none."""
    parts = hooks[0].split(".") if hooks else []
    paths = [".".join(parts[: i + 1]) for i, part in enumerate(parts) if part in kinds]
    return next((path for path in paths if all(hook.startswith(f"{path}.") for hook in hooks)), None)


class Hooked:
    """Runs `model` and returns, for each of `hooks`, what a module puts out or is given: of a tuple, its first tensor; of a
    module that runs several times in a pass, the first time's.

    A hook is the dotted path of a module for what it puts out, the path with `.input` behind it for what it is given, or
    TransformerLens's name of such a place. Paths in the model with its head, `model.layers.3`, hold for the model without
    it, too. An attention's heads before they are projected are what the projection is given, `self_attn.o_proj.input`.

    Models of an encoder and a decoder: the decoder is given a start token and then the text that the encoder is given; its
    rows are those of the text.

    Raises `UserError` for a place that the model does not have, with the nearest that it has.
    """

    def __init__(self, model: nn.Module, hooks: Sequence[str]) -> None:
        modules = dict(model.named_modules())
        places = {hook: _place(hook, modules, getattr(model, "base_model_prefix", "")) for hook in hooks}
        self.paths = {hook: place.path for hook, place in places.items()}
        """Each hook's dotted path in the model."""
        if twice := [path for path, n in Counter(self.paths.values()).items() if n > 1]:
            names = ", ".join(hook for hook, path in self.paths.items() if path == twice[0])
            raise UserError(f"hooks names one place twice: {names}; name it once")
        found = [place.module for place in places.values()]
        if (of_images := [path for path in found if tower([path], IMAGE_TOWERS)]) and len(of_images) < len(found):
            raise UserError(f"hook {of_images[0]!r} is of images, others are of text; harvest them apart")
        # A model of text and images (CLIP) wants both.
        self.model, self.hooks = modules[tower(found) or ""], list(hooks)
        self._start = _decoder_start(getattr(model, "config", None))
        parameters = inspect.signature(self.model.forward).parameters
        self._takes = set(parameters)
        self._takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        self.widths: dict[str, int] = {}
        """Each hook's width, once `probe` has found it."""
        self.lengths: dict[str, int] = {}
        """And how many tokens it gave."""
        self._flat: set[str] = set()
        """Hooks whose rows come without windows, (B·T, D)."""
        self._outputs: dict[str, Tensor] = {}
        self._runs: Counter[str] | None = None
        self._shape: tuple[int, ...] = ()
        self._taps = [(hook, modules[place.module], place.given) for hook, place in places.items()]

    def named(self, hook: str) -> str:
        """The dotted path of a hook: as the user gave it, or of TransformerLens's name the one in the model."""
        return self.paths[hook] if hook_names.is_transformer_lens(hook) else hook

    @property
    def device(self) -> torch.device:
        """Where the model takes its inputs. One that accelerate spreads moves them on, wherever they are."""
        places = (parameter.device for parameter in self.model.parameters() if not parameter.is_meta)
        return next(places, torch.device("cpu"))

    @contextlib.contextmanager
    def _tapped(self) -> Iterator[None]:
        """The model with the hooks in it: without them it is as it was."""

        def given(hook: str, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._keep(hook, (*args, kwargs.get("hidden_states"), *kwargs.values()))

        def put_out(hook: str, _module: Any, _args: Any, output: Any) -> None:
            self._keep(hook, output)

        with contextlib.ExitStack() as stack:
            for hook, module, is_given in self._taps:
                if is_given:
                    tap = module.register_forward_pre_hook(partial(given, hook), with_kwargs=True)
                else:
                    tap = module.register_forward_hook(partial(put_out, hook))
                stack.callback(tap.remove)
            yield

    def _keep(self, hook: str, values: Any) -> None:
        x = _first_tensor(values)
        if x is not None and len(self._shape) == 2:
            if x.dim() == 4 and self._fits(x):
                x = x.flatten(2)  # heads side by side
            elif x.dim() == 2 and len(x) == math.prod(self._shape) and (min(self._shape) > 1 or hook in self._flat):
                x = x.unflatten(0, self._shape)  # OPT's MLP, routers
                self._flat.add(hook)
        if x is None or x.dim() != 3 or not x.is_floating_point() or not self._fits(x):
            kind = type(values).__name__ if x is None else f"a tensor of shape {tuple(x.shape)}"
            does = "is given" if self.paths[hook].endswith(_INPUT) else "puts out"
            raise UserError(
                f"module {hook!r} {does} {kind} for {self._given()}; hook one that puts out (batch, tokens, width)"
            )
        if hook not in self._outputs:
            # Without the row of the decoder's start token; a copy, as some models (Falcon) add to it where it is.
            self._outputs[hook] = (x[:, -self._shape[1] :] if len(self._shape) == 2 else x).clone()
        if self._runs is not None:
            self._runs[hook] += 1
        elif len(self._outputs) == len(self.hooks):
            raise _Enough

    def _fits(self, x: Tensor) -> bool:
        """Whether the first dimensions are windows and tokens (of a decoder, one token more), or images."""
        longer = self._start is not None and len(self._shape) == 2 and x.shape[1] == self._shape[1] + 1
        return tuple(x.shape[: len(self._shape)]) == self._shape or (longer and x.shape[0] == self._shape[0])

    def _given(self) -> str:
        if len(self._shape) == 1:
            return f"{self._shape[0]} images"
        return f"{self._shape[0]} windows of {self._shape[1]} tokens"

    def probe(self, **inputs: Tensor) -> dict[str, int]:
        """How often each hook's module runs in a pass, by a pass over these inputs.

        Raises:
            UserError: The model does not run as far as the hooks, or there is something else than activations at them.
        """
        self._runs = Counter()
        try:
            found = self(**inputs)
            self.widths = {hook: x_BTD.shape[2] for hook, x_BTD in found.items()}
            self.lengths = {hook: x_BTD.shape[1] for hook, x_BTD in found.items()}
            return dict(self._runs)
        finally:
            self._runs = None

    @torch.inference_mode()
    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Each hook's rows: (B, T, D). `input_ids` and `attention_mask` (B, T), or `pixel_values` (B, channels, H, W)."""
        words = "input_ids" in inputs
        main = inputs["input_ids" if words else "pixel_values"]
        self._outputs, self._shape = {}, tuple(main.shape if words else main.shape[:1])
        reason = ""
        try:
            with self._tapped():
                self._forward({name: value.to(self.device) for name, value in inputs.items()})
        except _Enough:
            pass
        except UserError:
            raise
        except Exception as error:  # whatever a model raises without its other inputs, or beyond its positions
            reason = f" ({str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__})"
            if isinstance(error, torch.OutOfMemoryError):
                raise UserError(f"the device has no room for a batch{reason}; lower batch_size") from error
        if reason and self._runs is None:
            raise UserError(
                f"the model failed on a batch{reason}; it ran on two windows before: are the inputs of its kind?"
            )
        # What fails beyond the last hook does not matter.
        if silent := [hook for hook in self.hooks if hook not in self._outputs]:
            alone = "text alone" if words else "images alone"
            raise UserError(f"module {silent[0]!r} did not run in the model's forward on {alone}{reason}; hook another")
        return self._outputs

    def _forward(self, inputs: dict[str, Tensor]) -> None:
        if self._start is not None and "input_ids" in inputs:
            start_B1 = torch.full_like(inputs["input_ids"][:, :1], self._start)
            inputs["decoder_input_ids"] = torch.cat([start_B1, inputs["input_ids"]], 1)
        named = {name: x for name, x in inputs.items() if self._takes_any or name in self._takes}
        # A module of one's own calls its first argument what it likes.
        first = next(iter(inputs))
        self.model(*([] if first in named else [inputs[first]]), **named)


def _place(hook: str, modules: dict[str, nn.Module], prefix: str) -> _Place:
    """Where a hook is. Raises `UserError` where the model has no such place."""
    names = [hook]
    if hook_names.is_transformer_lens(hook) and hook not in modules:
        names = [known] if (known := hook_names.dotted_among(hook, modules)) else []
        if not names:
            raise UserError(
                f"TransformerLens's {hook!r} is no place of this model that saelight knows; give a module's dotted path, "
                f"such as {_nearest('layers.3', modules)}"
            )
    names += [names[0].removeprefix(f"{prefix}.")]  # AutoModel has no head around it
    for name in names:
        for place in (
            _Place(name, False),
            _Place(name.removesuffix(_OUTPUT), False),
            _Place(name.removesuffix(_INPUT), True),
        ):
            if place.module and place.module in modules:
                return place
    also = "" if names[0] == hook else f", TransformerLens's {hook}"
    raise UserError(f"the model has no module {names[0]!r}{also}; nearest: {_nearest(names[0], modules)}")


def _decoder_start(config: Any) -> int | None:
    """The token that a decoder begins with, padding where the model names none; None where there is no decoder."""
    if not getattr(config, "is_encoder_decoder", False):
        return None
    return next((i for name in _STARTS if (i := getattr(config, name, None)) is not None), 0)


def _nearest(name: str, modules: dict[str, nn.Module]) -> str:
    near = difflib.get_close_matches(name.removesuffix(_INPUT), [path for path in modules if path], n=3, cutoff=0.3)
    return ", ".join(near) or ", ".join([path for path in modules if path][:3])


def _first_tensor(values: Any) -> Tensor | None:
    """The first tensor of floats among a module's arguments, or of what it puts out; else its first tensor."""
    if isinstance(values, Tensor):
        return values
    if hasattr(values, "values"):  # transformers' outputs
        values = tuple(values.values())
    if isinstance(values, tuple | list):
        tensors = [value for value in values if isinstance(value, Tensor)]
        return next((x for x in tensors if x.is_floating_point()), next(iter(tensors), None))
    return None
