"""A model that reads documents: the rows that it makes of them, group by group of windows.

Shapes: N rows.
"""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from saelight.data.harvest.corpus import Corpus, places
from saelight.data.harvest.hooked import Hooked
from saelight.data.harvest.loading import load
from saelight.data.harvest.model_settings import ModelSettings
from saelight.data.harvest.onednn_linear import use_onednn
from saelight.data.harvest.pass_folder import FOLDER
from saelight.data.harvest.shared_pass import SharedPass
from saelight.data.harvest.text_settings import TextSettings
from saelight.data.harvest.text_windows import TextWindow, WindowCutter, WindowSettings, in_groups
from saelight.data.harvest.window_batches import WindowRunner, probe_of
from saelight.data.row_filter import Piece, RowFilter
from saelight.errors import UserError

Documents = Iterable[tuple[int, str | list[int]]]
"""Numbered documents, texts or token ids; iterated anew, they begin anew."""
_DOCUMENTS = 256
"""Documents that tell a text from another one, before it is read."""
_OF_EACH = 64
"""Numbers of each weight that tell a model from another one."""


@dataclass(frozen=True)
class TextModel:
    """A model, its documents, and which of its rows are kept."""

    documents: Documents
    cut: WindowCutter
    run: WindowRunner
    rows_kept: Mapping[str, Any]
    """Settings of `RowFilter`."""
    runs: Mapping[str, int]
    """How often each hook's module runs in a pass."""
    linear: str
    """Whose kernel computes linear layers: onednn or torch."""
    weights: str
    """A digest of the weights."""
    shared: SharedPass | None = None
    """The pass that other runs of this machine make, too."""
    cuts_last: bool = False
    """Whether the last group of windows is no larger than the rows ask for, as a harvest's is. What shares a batch shows in
    the last bits."""

    @property
    def widths(self) -> Mapping[str, int]:
        """Width of each hook's rows."""
        return self.run.hooked.widths

    def named(self, hook: str) -> str:
        """The dotted path of a hook's place."""
        return self.run.hooked.named(hook)

    @property
    def bytes(self) -> int:
        """What the weights take."""
        return sum(parameter.nbytes for parameter in self.run.hooked.model.parameters())

    def pieces(
        self,
        documents: Documents,
        skip: int,
        row_filter: RowFilter,
        begins: Callable[[TextWindow], object] = lambda window: None,
        done: Callable[[int], object] = lambda rows: None,
    ) -> Iterator[Piece]:
        """The rows of documents that pass a filter; of each group of windows a piece.

        Args:
            skip: Tokens of the first document that are passed over.
            begins: Told the first window of a group before it runs.
            done: Told, after each batch, of its rows that are not of special tokens.
        """
        windows = self.cut(documents, skip)

        def groups() -> Iterator[list[TextWindow]]:
            size = self.run.group
            whole = iter(lambda: list(itertools.islice(windows, size)), [])
            for group in in_groups(windows, size, row_filter) if self.cuts_last else whole:
                begins(group[0])
                yield group

        if self.shared is None:
            return row_filter(self.run(group, done) for group in groups())
        return row_filter(self.shared.pieces(groups(), done, lambda: row_filter.left))


def open_text_model(
    model: ModelSettings,
    text: TextSettings,
    windows: WindowSettings,
    hooks: Sequence[str],
    *,
    batch_size: int,
    dtype: torch.dtype,
    rows_kept: Mapping[str, Any],
    shared_bytes: int = 0,
    cuts_last: bool = False,
) -> TextModel:
    """The model, loaded, and the text, found.

    Args:
        shared_bytes: Memory for rows that other runs of this machine make, too, where whoever started them wants it.

    Raises:
        UserError: There is no such model, module or text, or they do not go together.
    """
    places(text)  # a name that is wrong is said before a large model is loaded
    if model.device == "auto" and torch.cuda.is_available():
        model = dataclasses.replace(model, device=f"cuda:{int(os.environ.get('LOCAL_RANK', 0))}")
    loaded = load(model, hooks)
    if loaded.image_transform is not None:
        raise UserError(f"model {loaded.name!r} reads images; `saelight shards harvest` them, and train on the shards")
    documents, cut = Corpus(text), WindowCutter(windows, loaded)
    linear = "onednn" if use_onednn(loaded.network) else "torch"
    pad = getattr(loaded.tokenizer, "pad_token_id", None) or 0

    def runner(places: Sequence[str]) -> tuple[WindowRunner, dict[str, int]]:
        hooked = Hooked(loaded.network, places)
        runs = hooked.probe(**probe_of(loaded, windows.context))
        return WindowRunner(hooked, windows, batch_size, pad, dtype), runs

    run, runs = runner(hooks)
    weights, shared = _weights(loaded.network), None
    if (folder := os.environ.get(FOLDER)) and shared_bytes:
        there = run.hooked.device
        kind = torch.cuda.get_device_name(there) if there.type == "cuda" else there.type
        how = [asdict(model) | {"device": kind}, asdict(windows), batch_size, pad, str(dtype), linear, weights]
        shared = SharedPass(run, lambda places: runner(places)[0], Path(folder), how, shared_bytes)
    return TextModel(documents, cut, run, rows_kept, runs, linear, weights, shared, cuts_last)


def text_digest(documents: Documents) -> str:
    """Of the beginning of a text, as far as its first documents."""
    first = ((number, digest) for number, _, digest in itertools.islice(digested(documents), _DOCUMENTS))
    return max(first, default=(0, ""))[1]


def digested(documents: Documents) -> Iterator[tuple[int, str | list[int], str]]:
    """The documents, each with a digest of all up to and with it."""
    digest = hashlib.blake2b(digest_size=16)
    for number, content in documents:
        raw = content.encode(errors="surrogatepass") if isinstance(content, str) else np.array(content, np.int64).tobytes()
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
        yield number, content, digest.hexdigest()


def _weights(network: nn.Module) -> str:
    """A digest of a few numbers of every weight: training changes all of them."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in network.state_dict().items():
        if weight.is_meta:  # on no device: accelerate has it elsewhere
            continue
        some = weight.flatten()[:: max(1, weight.numel() // _OF_EACH)]
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(some.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
