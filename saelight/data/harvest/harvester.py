"""Run a model over text or images and write what it does in chosen places as shards.

Shapes: B windows of a batch, T tokens, N rows, D width.
"""

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saelight.data.harvest.harvest_settings import HarvestSettings
from saelight.errors import UserError

if TYPE_CHECKING:
    from saelight.data.harvest.corpus import Document
    from saelight.data.harvest.hooked import Hooked
    from saelight.data.harvest.model_settings import LoadedModel
    from saelight.data.row_filter import Piece, RowFilter

_GROUP_BATCHES, _GROUP_BYTES = 16, 256 << 20
"""Batches whose rows are in memory at once, as far as they take no more bytes: windows of like length share a batch."""
_DOCUMENTS = 16
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

    import torch

    from saelight.bars import bar as progress
    from saelight.data.dropped import in_words
    from saelight.data.harvest import image_rows
    from saelight.data.harvest.corpus import Corpus, places
    from saelight.data.harvest.hooked import Hooked
    from saelight.data.harvest.loading import load
    from saelight.data.harvest.onednn_linear import use_onednn
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
    if not images:
        model.check_context(settings.context)
        if settings.skip_positions >= settings.context:
            raise UserError(
                f"skip_positions {settings.skip_positions} leaves nothing of windows of {settings.context} tokens; lower it"
            )
    linear = "onednn" if use_onednn(model.network) else "torch"
    drop_tokens = settings.drop_tokens or ()
    row_filter = RowFilter(settings.max_norm, settings.skip_positions, drop_tokens, at_most=settings.max_tokens)
    source = _source(settings, images) | row_filter.settings | {"linear": linear}
    last = -1
    with contextlib.ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        bar = stack.enter_context(progress(total=settings.max_tokens, unit=" tokens", desc="harvest", smoothing=0.05))
        if images:
            rows = image_rows.ImageRows(hooked, model.image_transform, settings.image_tokens, settings.batch_size, dtype)
            runs, source["images"] = rows.runs, rows.about
            pieces: Iterable[Piece] = rows(corpus)
        else:
            runs = hooked.probe(**_probe(model, settings.context))
            batch = settings.batch_size * settings.context * sum(hooked.widths.values()) * dtype.itemsize
            size = settings.batch_size * min(_GROUP_BATCHES, max(1, _GROUP_BYTES // batch))
            pad = getattr(model.tokenizer, "pad_token_id", None) or 0
            compute = partial(_run, hooked, batch_size=settings.batch_size, pad=pad, dtype=dtype)
            windows = _windows(corpus, model, settings)
            pieces = (compute(group, bar=bar) for group in _groups(windows, size, row_filter))
        for piece in row_filter(pieces):
            for hook, x_ND in piece.x.items():
                if hook not in writers:
                    # Each writer holds a shard: of many hooks, the shards are smaller.
                    held = SHARD_BYTES * _WHOLE_SHARDS // max(_WHOLE_SHARDS, len(hooks))
                    writers[hook] = stack.enter_context(
                        ShardWriter(
                            folders[hook],
                            model=settings.model,
                            hook=hooked.named(hook),
                            dtype=settings.dtype,
                            d_in=x_ND.shape[1],
                            rows_per_shard=settings.rows_per_shard or max(1, held // (x_ND.shape[1] * dtype.itemsize)),
                            source=source | ({"application": f"the first of {runs[hook]}"} if runs[hook] > 1 else {}),
                        )
                    )
                writers[hook].append(x_ND, **piece.columns)
            if len(ids := piece.columns["document_ids"]):
                last = int(ids[-1])
            # Rows that have been dropped since they were counted.
            bar.update(row_filter.passed - bar.n)
        if not row_filter.seen:
            raise UserError(f"the files hold no {'image that can be read' if images else 'text'}; name others in `files`")
        for hook, writer in writers.items():
            writer.source |= {"documents": last + 1, "files_skipped": corpus.skipped}
            writer.dropped = [row_filter.report(hook)]
    skipped = f" ({corpus.skipped} files were no {'images' if images else 'UTF-8 text'})" if corpus.skipped else ""
    print(f"{row_filter.passed:,} rows of {last + 1} documents in {', '.join(map(str, folders.values()))}{skipped}")
    for hook in hooks:
        if runs[hook] > 1:
            print(f"{hook} runs {runs[hook]} times in a pass: what it puts out first is stored")
        print(f"dropped for {hook}: {in_words(row_filter.report(hook))}")


def _folders(settings: HarvestSettings) -> dict[str, Path]:
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
    folders = {hook: Path(settings.out) / hook if len(hooks) > 1 else Path(settings.out) for hook in hooks}
    for folder in folders.values():
        if folder.exists():
            raise UserError(f"{folder} exists; choose another folder, or remove it")
    return folders


def _source(settings: HarvestSettings, images: bool) -> dict[str, Any]:
    """Where the rows come from, for their metadata: settings of few uses only where they are used."""
    source: dict[str, Any] = {"files": settings.files, "exclude": settings.exclude or []}
    if images:
        source["image_tokens"] = settings.image_tokens
    else:
        source |= {name: getattr(settings, name) for name in ("context", "drop_special", "special_in_text")}
    source |= {"model_dtype": settings.model_dtype, "seed": settings.seed}
    rarer = ("column", "subset", "revision", "tokenizer", "attention")
    source |= {name: value for name in rarer if (value := getattr(settings, name)) is not None}
    if settings.data_sets:
        source["split"] = settings.split
    return source


class _Window(NamedTuple):
    """What the model sees at once."""

    document: int
    ids: list[int]
    special: list[bool]
    """Which rows are dropped as special tokens' own."""


def _probe(model: "LoadedModel", context: int) -> dict[str, Any]:
    """Two windows of a token that is no special one, where there is such."""
    import torch

    ids = [] if model.tokenizer is None else model.tokenizer("a", add_special_tokens=False)["input_ids"]
    ids_BT = torch.full((2, context), next(iter(ids), 0))
    return {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}


def _windows(corpus: "Iterable[Document]", model: "LoadedModel", settings: HarvestSettings) -> Iterator[_Window]:
    """The documents' windows in order, tokenized some documents at a time: of text with the tokenizer's special tokens, of
    token ids as they are."""
    documents = iter(corpus)
    while some := list(itertools.islice(documents, _DOCUMENTS)):
        texts = [document for document in some if isinstance(document.content, str)]
        of_text = iter(_windows_of_text(texts, model, settings) if texts else ())
        waiting = next(of_text, None)
        for document in some:
            if isinstance(document.content, str):
                while waiting is not None and waiting.document == document.id:
                    yield waiting
                    waiting = next(of_text, None)
            elif isinstance(document.content, list):
                yield from _windows_of_ids(document.id, document.content, model, settings)


def _windows_of_text(texts: "list[Document]", model: "LoadedModel", settings: HarvestSettings) -> Iterator[_Window]:
    if model.tokenizer is None:
        raise UserError(
            f"model {settings.model!r} has no tokenizer for text ({model.lacks}); name one with `tokenizer`, or give a "
            "`column` of token ids"
        )
    cut = model.tokenizer(
        [document.content for document in texts],
        split_special_tokens=not settings.special_in_text,
        truncation=True,
        max_length=settings.context,
        return_overflowing_tokens=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
    )
    for ids, special, text in zip(
        cut["input_ids"], cut["special_tokens_mask"], cut["overflow_to_sample_mapping"], strict=True
    ):
        yield _Window(texts[text].id, ids, [bool(s and settings.drop_special) for s in special])


def _windows_of_ids(document: int, ids: list[int], model: "LoadedModel", settings: HarvestSettings) -> Iterator[_Window]:
    model.check_token_ids(ids, document)
    special = model.special_ids if settings.drop_special else frozenset()
    for start in range(0, len(ids), settings.context):
        window = ids[start : start + settings.context]
        yield _Window(document, window, [i in special for i in window])


def _groups(windows: Iterator[_Window], size: int, row_filter: "RowFilter") -> Iterator[list[_Window]]:
    """The windows, `size` at a time; the last ones no more than hold the rows that may still pass the filter."""
    while True:
        room = math.inf if row_filter.at_most is None else row_filter.at_most - row_filter.passed
        group: list[_Window] = []
        while room > 0 and len(group) < size and (window := next(windows, None)):
            group.append(window)
            room -= window.special.count(False)
        if not group:
            return
        yield group


def _run(hooked: "Hooked", group: list[_Window], batch_size: int, pad: int, dtype: Any, bar: Any) -> "Piece":
    """All rows of a group of windows, in their order. Windows of like length share a batch."""
    import torch

    from saelight.data.row_filter import Piece

    by_length = sorted(range(len(group)), key=lambda i: len(group[i].ids))
    outputs: dict[str, list] = {hook: [None] * len(group) for hook in hooked.hooks}
    for first in range(0, len(group), batch_size):
        chosen = by_length[first : first + batch_size]
        length = max(len(group[i].ids) for i in chosen)
        ids_BT = torch.full((len(chosen), length), pad)
        mask_BT = torch.zeros_like(ids_BT)
        for b, i in enumerate(chosen):
            ids_BT[b, : len(group[i].ids)] = torch.tensor(group[i].ids)
            mask_BT[b, : len(group[i].ids)] = 1
        for hook, x_BTD in hooked(input_ids=ids_BT, attention_mask=mask_BT).items():
            x_BTD = x_BTD.to("cpu", dtype)
            for b, i in enumerate(chosen):
                outputs[hook][i] = x_BTD[b, : len(group[i].ids)]
        bar.update(sum(group[i].special.count(False) for i in chosen))
    columns = {
        "token_ids": torch.tensor([id_ for w in group for id_ in w.ids], dtype=torch.int32),
        "positions": torch.tensor([i for w in group for i in range(len(w.ids))], dtype=torch.int32),
        "document_ids": torch.tensor([w.document for w in group for _ in w.ids], dtype=torch.int64),
    }
    x = {hook: torch.cat(rows_of_windows) for hook, rows_of_windows in outputs.items()}
    return Piece(x, columns, torch.tensor([s for w in group for s in w.special]))
