"""A model whose activations at one place are replaced, and that computes nothing twice.

What comes before the place is the same whatever is put there. Blocks are layers of one list, each of which takes the
residual stream and gives it on: those before the place, and the one that it is the output of, run once a batch, and are
passed over whenever something is put there.

Shapes: B windows, T tokens, V vocabulary, D width at the place.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from saelight.errors import UserError, one_line
from saelight.lm.places import ModulePlace, blocks_around

_TOLERANCE = 1e-4  # of the largest logit; float32 repeats itself to 1e-6, bfloat16 exactly, as the same kernels run


class _Enough(Exception):
    """All that is looked for has been seen."""


class Seen(NamedTuple):
    """A batch of windows, and the model's own activations on it."""

    ids_BT: Tensor
    mask_BT: Tensor
    """What is no padding: 1, else 0."""
    x_BTD: Tensor
    """What is at the place that is read."""
    y_BTD: Tensor
    """What is at the place that is written to."""
    outputs: list[Any]
    """What the blocks before it gave: the last one all of it, the others what is beside the stream."""


class Substitution:
    """Runs `network(input_ids=, attention_mask=)`, for its logits, with other activations in one place.

    Args:
        network: A model in eval mode.
        read: Where an SAE's input is.
        written: Where its output belongs: the same place, or a transcoder's target.
    """

    def __init__(self, network: nn.Module, read: ModulePlace, written: ModulePlace) -> None:
        self.network, self.read, self.written = network, read, written
        self._before: list[nn.Module] = []
        if around := blocks_around(network, written.path):
            blocks, number, is_block = around
            self._before = blocks[: number + (is_block and not written.is_input)]

    @torch.no_grad()
    def check(self, ids_BT: Tensor) -> Seen:
        """Look at a few windows, twice each, and find out whether blocks may be passed over; if not, the model runs as a
        whole whenever something is put there.

        Raises:
            UserError: The model does not run on text alone, it looks ahead, or the place is not one of activations.
        """
        # Of one window alone, tables of positions look like activations.
        ids_BT = ids_BT.repeat(2, 1)
        other_end = ids_BT.clone()
        other_end[:, -1] = torch.where(ids_BT[:, -1] > 0, ids_BT[:, -1] - 1, 1)
        mask_BT = torch.ones_like(ids_BT)
        try:
            seen, logits_BTV = self._run(ids_BT, mask_BT, stop=False)
            assert logits_BTV is not None
            ahead = self._forward(other_end, mask_BT)
        except UserError:
            raise
        except Exception as error:  # whatever a model raises without its other inputs
            raise UserError(
                f"the model does not run on text alone ({one_line(error)}): give a causal language model"
            ) from error
        if not _same(ahead[:, :-1], logits_BTV[:, :-1]):
            raise UserError(
                "the model sees the tokens that it is to predict: give a causal one, which reads from left to right"
            )
        other, before = 0.5 * seen.y_BTD, self._before
        try:
            shortened = self.put(seen, other)
        except Exception:  # a model that wants of its blocks more than the stream
            shortened = None
        self._before = []
        if shortened is not None and _same(shortened, self.put(seen._replace(outputs=[]), other)):
            self._before = before
        return seen

    def check_widths(self, seen: Seen, d_in: int, d_out: int, whose: str) -> None:
        """Raise `UserError` where activations of these widths are not what is read and written; `whose` they are begins the
        message."""
        for place, x_BTD, wanted in ((self.read, seen.x_BTD, d_in), (self.written, seen.y_BTD, d_out)):
            if (width := x_BTD.shape[-1]) != wanted:
                raise UserError(
                    f"{whose} has activations of width {wanted}, and {place.name} of this model has {width}: give its own "
                    "model and hook"
                )

    @torch.no_grad()
    def look(self, ids_BT: Tensor, mask_BT: Tensor) -> Seen:
        """The model's own activations on windows (B, T); it runs no further than these are."""
        return self._run(ids_BT, mask_BT, stop=True)[0]

    @torch.no_grad()
    def put(self, seen: Seen, y_BTD: Tensor) -> Tensor:
        """The logits (B, T, V) on windows that were looked at, with `y_BTD` in the place that is written to."""
        with contextlib.ExitStack() as stack:
            if self._before and self._before[-1] is self.written.module and not self.written.is_input:
                stack.enter_context(self._passed_over(seen.outputs, y_BTD))
            else:
                stack.enter_context(self._passed_over(seen.outputs))
                stack.callback(_hook(self.written, lambda _: y_BTD).remove)
            return self._forward(seen.ids_BT, seen.mask_BT)

    def _forward(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        output = self.network(input_ids=ids_BT, attention_mask=mask_BT)
        return output if isinstance(output, Tensor) else output.logits

    def _run(self, ids_BT: Tensor, mask_BT: Tensor, stop: bool) -> tuple[Seen, Tensor | None]:
        """The model as it is, and its logits; None where it stops as soon as the places have been seen."""
        found: dict[ModulePlace, list[Any]] = {self.read: [], self.written: []}
        outputs: list[Any] = [None] * len(self._before)
        logits_BTV = None

        def see(place: ModulePlace, x: Any) -> None:
            found[place].append(x)
            if stop and all(found.values()) and self._before[-1:] != [place.module]:
                raise _Enough

        def note(i: int, output: Any) -> None:
            # Of all blocks but the last only what is beside the stream is needed again.
            last = i == len(self._before) - 1
            outputs[i] = output if last or not isinstance(output, tuple) else (None, *output[1:])
            if stop and last and all(found.values()):
                raise _Enough

        with contextlib.ExitStack() as hooks:
            for place in found:
                hooks.callback(_hook(place, lambda x, place=place: see(place, x)).remove)  # type: ignore[misc]
            for i, block in enumerate(self._before):
                hooks.callback(block.register_forward_hook(lambda _m, _a, out, i=i: note(i, out)).remove)
            with contextlib.suppress(_Enough):
                logits_BTV = self._forward(ids_BT, mask_BT)
        for place, seen in found.items():
            if not seen or (len(seen) > 1 and not stop):
                runs = f"runs {len(seen)} times" if seen else "does not run"
                raise UserError(f"{place.name!r} {runs} in a pass of the model on text: hook a module that runs once")
            if not isinstance(seen[0], Tensor) or seen[0].dim() != 3 or seen[0].shape[:2] != ids_BT.shape:
                raise UserError(f"{place.name!r} holds no activations (batch, tokens, width): hook another module")
        return Seen(ids_BT, mask_BT, found[self.read][0], found[self.written][0], outputs), logits_BTV

    @contextlib.contextmanager
    def _passed_over(self, outputs: list[Any], stream_BTD: Tensor | None = None) -> Iterator[None]:
        """Let the blocks before give at once what the last of them gave, or `stream_BTD` in its place."""
        if stream_BTD is None and outputs:
            stream_BTD = outputs[-1][0] if isinstance(outputs[-1], tuple) else outputs[-1]
        own = [vars(block).get("forward") for block in self._before]
        try:
            for block, output in zip(self._before, outputs, strict=True):
                given = (stream_BTD, *output[1:]) if isinstance(output, tuple) else stream_BTD
                block.forward = lambda *_args, given=given, **_kwargs: given
            yield
        finally:
            for block, forward in zip(self._before, own, strict=True):
                if forward is None:
                    vars(block).pop("forward", None)
                else:
                    block.forward = forward


def _hook(place: ModulePlace, use: Callable[[Any], Tensor | None]) -> Any:
    """Show `use` the activations at a place; what it returns, if anything, takes their place."""
    if not place.is_input:

        def after(_module: nn.Module, _args: Any, output: Any) -> Any:
            inside = isinstance(output, tuple)
            new = use(output[0] if inside else output)
            return None if new is None else (new, *output[1:]) if inside else new

        return place.module.register_forward_hook(after)

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            new = use(args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        name = next((name for name, value in kwargs.items() if isinstance(value, Tensor) and value.dim() == 3), None)
        new = use(None if name is None else kwargs[name])
        return None if new is None or name is None else (args, kwargs | {name: new})

    return place.module.register_forward_pre_hook(before, with_kwargs=True)


def _same(a: Tensor, b: Tensor) -> bool:
    return bool((a.float() - b.float()).abs().max() <= _TOLERANCE * b.float().abs().max())
