"""Run a transformers model over text files and write the outputs of chosen modules as shards.

Shapes: B windows of a batch, T tokens, N rows, D width.
"""

import contextlib
import itertools
import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from saelight.data.harvest.harvest_part import HarvestPart
from saelight.data.remote.remote_url import located
from saelight.data.shards.disk import check_free
from saelight.errors import UserError

if TYPE_CHECKING:
    from saelight.data.harvest.hooked import Hooked
    from saelight.data.row_filter import Piece, RowFilter

_BATCHES = 16
_DOCUMENTS = 16


def harvest(
    model: str,
    files: list[str],
    hooks: list[str],
    out: str,
    exclude: list[str] | None = None,
    context: int = 128,
    batch_size: int = 32,
    max_tokens: int | None = None,
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16",
    max_norm: float | None = 10.0,
    skip_positions: int = 0,
    drop_tokens: list[int] | None = None,
    drop_special: bool = True,
    special_in_text: bool = False,
    model_dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    rows_per_shard: int | None = None,
    device: str = "auto",
    seed: int = 0,
    part: str | None = None,
) -> None:
    """Run a Hugging Face transformers model over text files and write activations as shards, one row a token.

    Args:
        model: Name or folder of the model, for AutoModel.from_pretrained. `{package:NAME}` is the folder of an
            installed package.
        files: Glob patterns of UTF-8 text files (`**` goes through folders); a file is a document. `{stdlib}` is the
            folder of Python's standard library.
        hooks: Dotted paths of the modules whose outputs are written, such as encoder.layer.3.
        out: Folder to make, on a disk or at a URL: of the shards, or, with several hooks, of one folder of shards per hook.
        exclude: Patterns of files to leave out, matched against the whole path (`*` matches / too).
        context: Tokens the model sees at once, special tokens included; documents are cut into such windows.
        batch_size: Windows of a batch. 32 of 128 tokens keep the CPU's caches warm; a GPU takes more.
        max_tokens: Rows to write at most, reached exactly when there is text enough. Default: all text.
        dtype: What rows are stored in. bfloat16 is half the size, and its rounding is small beside any SAE's error.
        max_norm: Leave out rows whose norm is more than this many times the median norm (attention sinks), which the first
            8,192 rows decide for each hook; null keeps all. What one hook leaves out, all do.
        skip_positions: Leave out this many positions at the beginning of each window.
        drop_tokens: Leave out the rows of these token ids.
        drop_special: Leave out the rows of the special tokens that the tokenizer adds. Padding is always left out.
        special_in_text: Read special tokens that are written out in a text (`<|endoftext|>`, `[SEP]`) as such, and not as
            text like any other.
        model_dtype: What the model computes in.
        rows_per_shard: Rows of a shard file. Default: 256 MiB of them.
        device: auto (the first GPU, or else the CPU), or a torch device.
        seed: Seed of the order of files, shuffled so that the last documents are a fair validation sample.
        part: `3/16`: harvest the third of sixteen parts of the documents into the same folder as the others, each a process
            or a job of its own; the last that is done makes the folder whole. One that was killed goes on at its last whole
            shard when it is run again. `max_tokens` is all parts' together.
    """
    for name, given in (("model", model), ("files", files), ("hooks", hooks), ("out", out)):
        if not given:
            raise UserError(f"harvest needs `{name}`; give --{name}, or a file with --config")
    for name, value in (("batch_size", batch_size), ("max_tokens", max_tokens), ("rows_per_shard", rows_per_shard)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if len(set(hooks)) < len(hooks):
        raise UserError(f"hooks names a module twice: {', '.join(hooks)}")
    folders = {hook: located(out) / hook if len(hooks) > 1 else located(out) for hook in hooks}
    for folder in folders.values():
        check_free(folder)
    portion = None if part is None else HarvestPart(part, folders)
    if portion is not None and portion.done:
        print(portion.merged())
        return

    import torch

    from saelight.bars import bar as progress
    from saelight.data.dropped import in_words
    from saelight.data.harvest import documents
    from saelight.data.harvest.hooked import Hooked
    from saelight.data.harvest.loading import load
    from saelight.data.harvest.onednn_linear import use_onednn
    from saelight.data.row_filter import RowFilter
    from saelight.data.shards.writer import ShardWriter

    paths = documents.find(files, exclude or [], seed)
    texts = documents.Documents(paths if portion is None else portion.share(paths))
    if portion is not None:
        max_tokens = portion.rows(max_tokens)
    tokenizer, network = load(documents.expand(model), context, model_dtype)
    if skip_positions >= context:
        raise UserError(f"skip_positions {skip_positions} leaves nothing of windows of {context} tokens; lower it")
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    hooked = Hooked(network.to(place), hooks)
    linear = "onednn" if use_onednn(network) else "torch"
    row_filter = RowFilter(max_norm, skip_positions, drop_tokens or (), at_most=max_tokens)
    if portion is not None:
        portion.resume(row_filter)
    source = {
        "files": files,
        "exclude": exclude or [],
        "context": context,
        "drop_special": drop_special,
        "special_in_text": special_in_text,
        **row_filter.settings,
        "model_dtype": model_dtype,
        "linear": linear,
        "seed": seed,
    }
    runs = hooked.probe(_ordinary_token(tokenizer), context)
    first = 0 if portion is None else portion.part.first(len(paths))
    last = first - 1
    with contextlib.ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        bar = stack.enter_context(progress(total=max_tokens, unit=" tokens", desc="harvest", smoothing=0.05))
        windows = _windows(texts, tokenizer, context, drop_special, special_in_text, first)
        run = partial(_run, hooked, batch_size=batch_size, pad=tokenizer.pad_token_id or 0, dtype=getattr(torch, dtype))
        if portion is not None:
            windows = itertools.islice(windows, portion.windows, None)
        groups = _groups(windows, _BATCHES * batch_size, row_filter)
        if portion is not None:
            groups = portion.followed(groups, row_filter)
        passing = row_filter(run(group, bar=bar) for group in groups)
        for piece in passing if portion is None else portion.passing(passing, writers):
            for hook, x_ND in piece.x.items():
                if hook not in writers:
                    writer = (ShardWriter if portion is None else portion.writer)(
                        folders[hook],
                        model=model,
                        hook=hook,
                        dtype=dtype,
                        d_in=x_ND.shape[1],
                        rows_per_shard=rows_per_shard,
                        source=source | ({"application": f"the first of {runs[hook]}"} if runs[hook] > 1 else {}),
                    )
                    writers[hook] = stack.enter_context(writer)
                writers[hook].append(x_ND, **piece.columns)
            if len(ids := piece.columns["document_ids"]):
                last = int(ids[-1])
            # Rows that have been dropped since they were counted.
            bar.update(row_filter.passed - bar.n)
        if not row_filter.seen and portion is None:
            raise UserError("the files hold no text; name others in `files`")
        for hook, writer in writers.items():
            writer.source |= {"documents": last + 1 - first, "files_skipped": texts.skipped}
            writer.dropped = [row_filter.report(hook)]
    if portion is not None and not row_filter.seen:
        print(portion.without_text())
        return
    print(
        f"{row_filter.passed:,} rows of {last + 1 - first} documents in {', '.join(map(str, folders.values()))}"
        + (f" ({texts.skipped} files were no UTF-8 text)" if texts.skipped else "")
    )
    for hook in hooks:
        if runs[hook] > 1:
            print(f"{hook} runs {runs[hook]} times in a pass: what it puts out first is stored")
        print(f"dropped for {hook}: {in_words(row_filter.report(hook))}")
    if portion is not None:
        print(portion.merged())


class _Window(NamedTuple):
    """What the model sees at once."""

    document: int
    ids: list[int]
    special: list[bool]
    """Which rows are dropped as special tokens' own."""


def _ordinary_token(tokenizer: Any) -> int:
    """One that is no special token, where there is one."""
    return next(iter(tokenizer("a", add_special_tokens=False)["input_ids"]), 0)


def _windows(
    documents: Any, tokenizer: Any, context: int, drop_special: bool, special_in_text: bool, number: int
) -> Iterator[_Window]:
    """The documents' windows in order, each with the tokenizer's special tokens, tokenized some documents at a time. The
    first document has this number."""
    documents = iter(documents)
    while texts := list(itertools.islice(documents, _DOCUMENTS)):
        cut = tokenizer(
            texts,
            split_special_tokens=not special_in_text,
            truncation=True,
            max_length=context,
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
        )
        for ids, special, text in zip(
            cut["input_ids"], cut["special_tokens_mask"], cut["overflow_to_sample_mapping"], strict=True
        ):
            yield _Window(number + text, ids, [bool(s and drop_special) for s in special])
        number += len(texts)


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
    place = next(hooked.model.parameters()).device
    outputs: dict[str, list] = {hook: [None] * len(group) for hook in hooked.hooks}
    for first in range(0, len(group), batch_size):
        chosen = by_length[first : first + batch_size]
        length = max(len(group[i].ids) for i in chosen)
        ids_BT = torch.full((len(chosen), length), pad)
        mask_BT = torch.zeros_like(ids_BT)
        for b, i in enumerate(chosen):
            ids_BT[b, : len(group[i].ids)] = torch.tensor(group[i].ids)
            mask_BT[b, : len(group[i].ids)] = 1
        for hook, x_BTD in hooked(input_ids=ids_BT.to(place), attention_mask=mask_BT.to(place)).items():
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
