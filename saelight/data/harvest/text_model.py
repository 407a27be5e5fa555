"""A model that reads documents: the rows that it makes of them, group by group of windows.

Shapes: N rows.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from saelight.data.harvest.corpus import Corpus, TextSettings
from saelight.data.harvest.documents import expand
from saelight.data.harvest.hooked import Hooked
from saelight.data.harvest.loading import load
from saelight.data.harvest.model_settings import ModelSettings
from saelight.data.harvest.onednn_linear import use_onednn
from saelight.data.harvest.text_windows import Segment, TextWindow, WindowCutter, WindowSettings, ordinary_token
from saelight.data.harvest.window_batches import GROUP, WindowRunner
from saelight.data.row_filter import Piece, RowFilter

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
    widths: Mapping[str, int]
    """Width of each hook's rows."""
    runs: Mapping[str, int]
    """How often each hook's module runs in a pass."""
    linear: str
    """Whose kernel computes linear layers: onednn or torch."""
    weights: str
    """A digest of the weights."""

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
        done: Callable[[], object] = lambda: None,
    ) -> Iterator[Piece]:
        """The rows of documents that pass a filter; of each group of windows a piece.

        Args:
            skip: Tokens of the first document that are passed over.
            begins: Told the first window of a group before it runs.
            done: Called after each batch.
        """
        windows = self.cut(documents, skip)

        def groups() -> Iterator[Piece]:
            while group := list(itertools.islice(windows, GROUP * self.run.batch_size)):
                begins(group[0])
                yield self.run(group, lambda _: done())

        return row_filter(groups())


def open_text_model(
    model: ModelSettings,
    text: TextSettings,
    windows: WindowSettings,
    hooks: Sequence[str],
    *,
    batch_size: int,
    dtype: torch.dtype,
    rows_kept: Mapping[str, Any],
) -> TextModel:
    """The model, loaded, and the text, found.

    Raises:
        UserError: There is no such model, module or text, or they do not go together.
    """
    documents = Corpus(text)
    tokenizer, network = load(expand(model.model), windows.context, model.model_dtype)
    auto = f"cuda:{int(os.environ.get('LOCAL_RANK', 0))}" if torch.cuda.is_available() else "cpu"
    hooked = Hooked(network.to(torch.device(auto if model.device == "auto" else model.device)), hooks)
    linear = "onednn" if use_onednn(network) else "torch"
    runs = hooked.probe(token := ordinary_token(tokenizer), windows.context)
    run = WindowRunner(hooked, windows, batch_size, tokenizer.pad_token_id or 0, dtype)
    rows = run([TextWindow([Segment(0, 0, [token, token], [False, False])])]).x
    widths = {hook: x_ND.shape[1] for hook, x_ND in rows.items()}
    cut = WindowCutter(windows, tokenizer)
    return TextModel(documents, cut, run, rows_kept, widths, runs, linear, _weights(network))


def text_digest(documents: Documents) -> str:
    """Of the beginning of a text, as far as its first documents."""
    return max((number, digest) for number, _, digest in itertools.islice(digested(documents), _DOCUMENTS))[1]


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
        some = weight.flatten()[:: max(1, weight.numel() // _OF_EACH)]
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(some.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
