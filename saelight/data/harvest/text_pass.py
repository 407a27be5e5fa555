"""One hook's rows of a text that is gone through once, with what is known of their tokens.

Shapes: N rows.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from saelight.bars import bar
from saelight.data.harvest.harvest_settings import HarvestSettings, noted
from saelight.data.harvest.hook_rows import HookRows
from saelight.data.harvest.model_stream import ModelStream
from saelight.data.harvest.text_model import TextModel, open_text_model, text_digest
from saelight.data.row_filter import RowFilter
from saelight.data.shards.reader import DTYPES, TOKEN_COLUMNS
from saelight.errors import UserError

MOST = (1 << 31) - 1
"""Rows of a text whose end is not known."""


@dataclass(eq=False)
class TextPass(HookRows):
    """A `Rows` with columns, of a stream that reads its text once: until the text has ended, `n_rows` is no more than
    what was asked for. Reading on is what it is for."""

    @property
    def columns(self) -> Collection[str]:
        """token_ids, positions and document_ids."""
        return TOKEN_COLUMNS

    def column(self, name: str, start: int, n: int) -> Tensor:
        """Rows [start, start + n) of one of `columns`: (n,)."""
        return self.stream.column(name, start, n)

    def will_need(self, start: int, n: int) -> None:
        """Run the model as far as these rows, or to the end of the text."""
        with bar(unit=" rows", desc="the model runs", delay=2, leave=False) as progress:
            self.stream.on_batch = progress.update
            self.stream.make(start, n)


def text_pass(stream: ModelStream, model: TextModel, hook: str, source: dict[str, Any], settings: str) -> TextPass:
    """A hook's rows of a stream that reads its text once.

    Args:
        source: Where the rows come from.
        settings: What tells the rows from those of other settings and weights.
    """
    said = json.dumps([settings, text_digest(model.documents), stream.n_rows, sorted(stream.limits.items())])
    fingerprint = hashlib.sha256(said.encode()).hexdigest()[:32]
    return TextPass(stream, hook, model.widths[hook], model.run.dtype, fingerprint, source)


def pass_of_harvest(settings: HarvestSettings, hook: str) -> TextPass:
    """The rows that a harvest would write for one of its hooks.

    Raises:
        UserError: Settings that make no sense, and what `open_text_model` raises.
    """
    if settings.part is not None:
        raise UserError("part is of a harvest that several processes write; drop it")
    if settings.skip_positions >= settings.context:
        raise UserError(
            f"skip_positions {settings.skip_positions} leaves nothing of windows of {settings.context}; lower it"
        )
    for name in ("batch_size", "max_tokens"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    kept = RowFilter(settings.max_norm, settings.skip_positions, settings.drop_tokens or ()).settings
    model = open_text_model(
        settings,
        settings,
        settings,
        settings.hooks,
        batch_size=settings.batch_size,
        dtype=DTYPES[settings.dtype],
        rows_kept=kept,
        cuts_last=settings.max_tokens is not None,
    )
    stream = ModelStream(model, settings.max_tokens or MOST, once=True)
    source = noted(settings, settings, settings) | kept | {"model": settings.model, "hook": model.named(hook)}
    batches = [settings.batch_size, settings.dtype, settings.hooks, model.weights]
    return text_pass(stream, model, hook, source, json.dumps([hook, batches, source], sort_keys=True))
