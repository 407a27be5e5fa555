"""Windows of text through a model, many at a time: rows out, in the order of the text.

Shapes: B windows of a batch, T tokens, N rows, D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from saelight.data.harvest.hooked import Hooked
from saelight.data.harvest.model_settings import LoadedModel
from saelight.data.harvest.text_windows import Segment, TextWindow, WindowSettings
from saelight.data.row_filter import Piece
from saelight.errors import UserError, one_line

_BATCHES, _BYTES = 16, 256 << 20
"""Batches of a group, as far as its rows take no more bytes. Its windows of like length share a batch: little is padding."""
_PROBE = range(5, 10)
"""Tokens that every vocabulary has."""


class WindowRunner:
    """Runs groups of windows through a model.

    Args:
        hooked: The model, which has been probed.
        settings: How the windows were cut.
        batch_size: Windows that the model is given at once.
        pad: The token of what is no token.
        dtype: What rows are stored in.
    """

    def __init__(self, hooked: Hooked, settings: WindowSettings, batch_size: int, pad: int, dtype: torch.dtype) -> None:
        self.hooked, self.batch_size, self.dtype = hooked, batch_size, dtype
        self.settings, self._pad = settings, pad
        batch = batch_size * settings.context * sum(hooked.widths.values()) * dtype.itemsize
        self.group = batch_size * min(_BATCHES, max(1, _BYTES // batch))
        """Windows of a group."""
        self._apart = settings.packed and not settings.attend_across
        if self._apart:
            self._causal = self._is_causal()
            self._check_apart()

    def __call__(self, group: list[TextWindow], done: Callable[[int], object] = lambda rows: None) -> Piece:
        """All rows of a group of windows, in their order. Windows of like length share a batch.

        Args:
            done: Told, after each batch, of its rows that are not of special tokens.
        """
        return self.piece(group, self.rows(group, done))

    def rows(self, group: list[TextWindow], done: Callable[[int], object]) -> dict[str, Tensor]:
        """What a call returns, by hook, without what is known of the tokens."""
        lengths = [len(window.ids) for window in group]
        by_length = sorted(range(len(group)), key=lengths.__getitem__)
        outputs: dict[str, list[Tensor]] = {hook: [torch.empty(0)] * len(group) for hook in self.hooked.hooks}
        for first in range(0, len(group), self.batch_size):
            chosen = by_length[first : first + self.batch_size]
            for hook, x_BTD in self._outputs([group[i] for i in chosen]).items():
                x_BTD = x_BTD.to("cpu", self.dtype)
                for b, i in enumerate(chosen):
                    outputs[hook][i] = x_BTD[b, : lengths[i]]
            done(sum(group[i].rows for i in chosen))
        return {hook: torch.cat(rows_of_windows) for hook, rows_of_windows in outputs.items()}

    def piece(self, group: list[TextWindow], x: dict[str, Tensor]) -> Piece:
        """A group's rows, with what is known of their tokens."""
        segments = [segment for window in group for segment in window.segments]
        columns = {
            "token_ids": torch.tensor([id_ for s in segments for id_ in s.ids], dtype=torch.int32),
            "positions": torch.tensor([p for window in group for p in self._positions(window)], dtype=torch.int32),
            "document_ids": torch.tensor([s.document for s in segments for _ in s.ids], dtype=torch.int64),
        }
        return Piece(x, columns, torch.tensor([special for window in group for special in window.special]))

    def _outputs(self, windows: list[TextWindow]) -> dict[str, Tensor]:
        length = max(len(window.ids) for window in windows)
        ids_BT = torch.full((len(windows), length), self._pad)
        mask_BT = torch.zeros_like(ids_BT)
        for b, window in enumerate(windows):
            ids = window.ids
            ids_BT[b, : len(ids)] = torch.tensor(ids)
            mask_BT[b, : len(ids)] = 1
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
        if self._apart:
            inputs |= self._kept_apart(windows, length)
        return self.hooked(**inputs)

    def _kept_apart(self, windows: list[TextWindow], length: int) -> dict[str, Tensor]:
        """Positions and a mask by which no segment sees another."""
        # What is padding attends to itself alone: a row without any key would be NaN in some kernels.
        segment_BT = -1 - torch.arange(length).expand(len(windows), -1).clone()
        position_BT = torch.zeros(len(windows), length, dtype=torch.int64)
        for b, window in enumerate(windows):
            numbers = [number for number, segment in enumerate(window.segments) for _ in segment.ids]
            segment_BT[b, : len(numbers)] = torch.tensor(numbers)
            position_BT[b, : len(numbers)] = torch.tensor(self._positions(window))
        sees_BTT = segment_BT[:, :, None] == segment_BT[:, None, :]
        if self._causal:
            sees_BTT = sees_BTT.tril()
        dtype = next((p.dtype for p in self.hooked.model.parameters() if p.is_floating_point()), torch.float32)
        mask_BTT = torch.zeros(sees_BTT.shape, dtype=dtype).masked_fill_(~sees_BTT, torch.finfo(dtype).min)
        return {"attention_mask": mask_BTT[:, None], "position_ids": position_BT}

    def _positions(self, window: TextWindow) -> list[int]:
        """Where the model takes each token to stand."""
        if self._apart:
            return [position for segment in window.segments for position in range(len(segment.ids))]
        return list(range(len(window.ids)))

    def _is_causal(self) -> bool:
        """Whether what follows a token leaves its rows as they are."""
        first, *others = _PROBE
        ids_BT = torch.tensor([[first, other] for other in others])
        outputs = self.hooked(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT))
        return all(_far(x_BTD[1:, 0], x_BTD[:1, 0].expand_as(x_BTD[1:, 0])) < _alike(x_BTD) for x_BTD in outputs.values())

    def _check_apart(self) -> None:
        """Raise `UserError` where a document's rows depend on what it is packed with, as far as two short ones tell."""
        tokens = list(_PROBE)
        segments = [Segment(d, 0, ids, [False] * len(ids)) for d, ids in enumerate((tokens[:3], tokens[3:]))]
        remedy = "set packed: false, or attend_across: true"
        try:
            together = self._outputs([TextWindow(segments)])
        except UserError as error:
            raise UserError(f"the model cannot keep packed documents apart ({one_line(error)}); {remedy}") from None
        for segment, start in zip(segments, (0, 3), strict=True):
            ids_BT = torch.tensor([segment.ids])
            alone = self.hooked(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT))
            for hook, x_BTD in alone.items():
                if not _far(together[hook][:, start : start + len(segment.ids)], x_BTD) < _alike(x_BTD):
                    raise UserError(f"the model lets packed documents see each other at {hook!r}; {remedy}")


def probe_of(model: LoadedModel, context: int) -> dict[str, Tensor]:
    """Two windows of a token that is no special one, where there is such."""
    ids = [] if model.tokenizer is None else model.tokenizer("a", add_special_tokens=False)["input_ids"]
    ids_BT = torch.full((2, context), next(iter(ids), 0))
    return {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}


def _far(x: Tensor, y: Tensor) -> float:
    """The largest distance between corresponding rows, relative to their norms."""
    x, y = x.double(), y.double()
    return float(((x - y).norm(dim=-1) / (x.norm(dim=-1) + y.norm(dim=-1)).clamp_min(1e-30)).max())


def _alike(x: Tensor) -> float:
    """How far the same row may lie from itself when it is computed in another batch."""
    return torch.finfo(x.dtype).eps ** 0.5
