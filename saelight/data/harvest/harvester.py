"""Run a model over text or images and write what it does in chosen places as shards.

Shapes: N rows, D width.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from saelight.data.harvest.harvest_part import HarvestPart
from saelight.data.harvest.harvest_settings import HarvestSettings, noted
from saelight.data.harvest.text_windows import WindowCutter, in_groups
from saelight.data.remote.remote_url import Url, located
from saelight.data.shards.disk import check_free
from saelight.errors import UserError

if TYPE_CHECKING:
    from saelight.data.harvest.corpus import Document
    from saelight.data.row_filter import Piece, RowFilter

T = TypeVar("T")

_WHOLE_SHARDS = 4
"""Hooks whose shards may have their whole size."""


def harvest(*args: Any, **settings: Any) -> None:
    """Run a model over text or images and write activations as shards, one row a token.

    Args:
        *args: The first of `HarvestSettings`' fields.
        **settings: Its fields.

    Raises:
        UserError: Settings that make no sense, or what `Corpus`, `load`, `Hooked` and `ShardWriter` raise.
    """
    run(HarvestSettings(*args, **settings))


def run(settings: HarvestSettings) -> None:
    """Harvest as the settings say. `UserError` as of `harvest`."""
    folders = _folders(settings)
    part = None if settings.part is None else HarvestPart(settings.part, folders)
    if part is not None and part.done:
        print(part.merged())
        return

    import torch

    from saelight.bars import bar as progress
    from saelight.data.dropped import in_words
    from saelight.data.harvest import image_rows
    from saelight.data.harvest.corpus import Corpus, places
    from saelight.data.harvest.hooked import Hooked
    from saelight.data.harvest.loading import load
    from saelight.data.harvest.onednn_linear import use_onednn
    from saelight.data.harvest.window_batches import WindowRunner, probe_of
    from saelight.data.row_filter import RowFilter
    from saelight.data.shards.writer import SHARD_BYTES, ShardWriter

    places(settings)  # a name that is wrong is said before a large model is loaded
    hooks, dtype = settings.hooks, getattr(torch, settings.dtype)
    model = load(settings, hooks)
    hooked = Hooked(model.network, hooks)
    images = model.image_transform is not None
    if not images and settings.image_tokens != ["patch"]:
        raise UserError("image_tokens is of models of images, and this one reads text; drop image_tokens")
    corpus = Corpus(settings, images)
    documents: Iterable[Document] = corpus if part is None else part.share(corpus)
    most = settings.max_tokens if part is None else part.rows(settings.max_tokens)
    if not images:
        cut = WindowCutter(settings, model)
        if settings.skip_positions >= settings.context:
            raise UserError(
                f"skip_positions {settings.skip_positions} leaves nothing of windows of {settings.context} tokens; lower it"
            )
    linear = "onednn" if use_onednn(model.network) else "torch"
    drop_tokens = settings.drop_tokens or ()
    row_filter = RowFilter(settings.max_norm, settings.skip_positions, drop_tokens, at_most=most)
    if part is not None:
        part.resume(row_filter)
    source = noted(settings, settings, None if images else settings) | row_filter.settings | {"linear": linear}
    first = 0 if part is None else part.first_document
    last = first - 1
    with contextlib.ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        bar = stack.enter_context(progress(total=most, unit=" tokens", desc="harvest", smoothing=0.05))
        if images:
            rows = image_rows.ImageRows(hooked, model.image_transform, settings.image_tokens, settings.batch_size, dtype)
            runs, source["images"], source["image_tokens"] = rows.runs, rows.about, settings.image_tokens
            groups: Iterator[list] = _batches(_left(documents, part), settings.batch_size)
            pieces: Iterator[Piece] = (piece for group in _noted(groups, part, row_filter) for piece in rows(group))
        else:
            runs = hooked.probe(**probe_of(model, settings.context))
            pad = getattr(model.tokenizer, "pad_token_id", None) or 0
            compute = WindowRunner(hooked, settings, settings.batch_size, pad, dtype)
            groups = in_groups(_left(cut(documents), part), compute.group, row_filter)
            pieces = (compute(group, bar.update) for group in _noted(groups, part, row_filter))
        passing = row_filter(pieces)
        for piece in passing if part is None else part.passing(passing, writers):
            for hook, x_ND in piece.x.items():
                if hook not in writers:
                    # Each writer holds a shard: of many hooks, the shards are smaller.
                    held = SHARD_BYTES * _WHOLE_SHARDS // max(_WHOLE_SHARDS, len(hooks))
                    writer = (ShardWriter if part is None else part.writer)(
                        folders[hook],
                        model=settings.model,
                        hook=hooked.named(hook),
                        dtype=settings.dtype,
                        d_in=x_ND.shape[1],
                        rows_per_shard=settings.rows_per_shard or max(1, held // (x_ND.shape[1] * dtype.itemsize)),
                        source=source | ({"application": f"the first of {runs[hook]}"} if runs[hook] > 1 else {}),
                    )
                    writers[hook] = stack.enter_context(writer)
                writers[hook].append(x_ND, **piece.columns)
            if len(ids := piece.columns["document_ids"]):
                last = int(ids[-1])
            # Rows that have been dropped since they were counted.
            bar.update(row_filter.passed - bar.n)
        if not row_filter.seen and part is None:
            raise UserError(f"the files hold no {'image that can be read' if images else 'text'}; name others in `files`")
        skipped = corpus.skipped if part is None else part.skipped
        for hook, writer in writers.items():
            writer.source |= {"documents": last + 1 - first, "files_skipped": skipped}
            writer.dropped = [row_filter.report(hook)]
    if part is not None and not row_filter.seen:
        print(part.without_text())
        return
    besides = f" ({skipped} files were no {'images' if images else 'UTF-8 text'})" if skipped else ""
    print(f"{row_filter.passed:,} rows of {last + 1 - first} documents in {', '.join(map(str, folders.values()))}{besides}")
    for hook in hooks:
        if runs[hook] > 1:
            print(f"{hook} runs {runs[hook]} times in a pass: what it puts out first is stored")
        print(f"dropped for {hook}: {in_words(row_filter.report(hook))}")
    if part is not None:
        print(part.merged())


def _folders(settings: HarvestSettings) -> dict[str, Path | Url]:
    """Where each hook's shards are to be. Raises `UserError` for settings that make no sense, and folders that exist."""
    for name in ("model", "files", "hooks", "out"):
        if not getattr(settings, name):
            raise UserError(f"harvest needs `{name}`; give --{name}, or a file with --config")
    for name in ("batch_size", "max_tokens", "rows_per_shard"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    hooks = settings.hooks
    if len(set(hooks)) < len(hooks):
        raise UserError(f"hooks names a module twice: {', '.join(hooks)}")
    out = located(settings.out)
    folders: dict[str, Path | Url] = {hook: out / hook if len(hooks) > 1 else out for hook in hooks}
    for folder in folders.values():
        check_free(folder)
    return folders


def _batches(things: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(things)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _left(things: Iterable[T], part: HarvestPart | None) -> Iterator[T]:
    """The windows, or images, that a part has yet to see."""
    return itertools.islice(things, 0 if part is None else part.windows, None)


def _noted(groups: Iterator[list], part: HarvestPart | None, row_filter: "RowFilter") -> Iterator[list]:
    """The groups; a part notes where each begins."""
    return groups if part is None else part.followed(groups, row_filter)
