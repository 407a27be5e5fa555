"""Run a transformers model over text files and write the outputs of chosen modules as shards.

Shapes: N rows, D width.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from saelight.errors import UserError

if TYPE_CHECKING:
    from saelight.data.harvest.text_windows import TextWindow
    from saelight.data.row_filter import RowFilter


def harvest(
    model: str,
    files: list[str],
    hooks: list[str],
    out: str,
    exclude: list[str] | None = None,
    context: int = 128,
    packed: bool = False,
    attend_across: bool = False,
    bos: bool | None = None,
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
) -> None:
    """Run a Hugging Face transformers model over text files and write activations as shards, one row a token.

    Args:
        model: Name or folder of the model, for AutoModel.from_pretrained. `{package:NAME}` is the folder of an
            installed package.
        files: Glob patterns of UTF-8 text files (`**` goes through folders); a file is a document. `{stdlib}` is the
            folder of Python's standard library.
        hooks: Dotted paths of the modules whose outputs are written, such as encoder.layer.3.
        out: Folder to make: of the shards, or, with several hooks, of one folder of shards per hook.
        exclude: Patterns of files to leave out, matched against the whole path (`*` matches / too).
        context: Tokens the model sees at once, special tokens included; documents are cut into such windows.
        packed: Put documents one after another into each window until it is full, a separator (the tokenizer's end of a
            text, or else its EOS token) behind each. false: a window holds one document, what is left of it is padding.
        attend_across: In packed windows, let tokens attend to the documents before theirs, as SAELens and sparsify do.
            false: positions begin anew with each document, and none sees another.
        bos: Begin each text, and each further window of it, with the BOS token (or CLS): null as the tokenizer does by
            itself; true always; false never.
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
    """
    for name, given in (("model", model), ("files", files), ("hooks", hooks), ("out", out)):
        if not given:
            raise UserError(f"harvest needs `{name}`; give --{name}, or a file with --config")
    for name, value in (("batch_size", batch_size), ("max_tokens", max_tokens), ("rows_per_shard", rows_per_shard)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if len(set(hooks)) < len(hooks):
        raise UserError(f"hooks names a module twice: {', '.join(hooks)}")
    folders = {hook: Path(out) / hook if len(hooks) > 1 else Path(out) for hook in hooks}
    for folder in folders.values():
        if folder.exists():
            raise UserError(f"{folder} exists; choose another folder, or remove it")

    import torch

    from saelight.bars import bar as progress
    from saelight.data.dropped import in_words
    from saelight.data.harvest import documents
    from saelight.data.harvest.hooked import Hooked
    from saelight.data.harvest.loading import load
    from saelight.data.harvest.onednn_linear import use_onednn
    from saelight.data.harvest.text_windows import WindowCutter, WindowSettings, ordinary_token
    from saelight.data.harvest.window_batches import GROUP, WindowRunner
    from saelight.data.row_filter import RowFilter
    from saelight.data.shards.writer import ShardWriter

    texts = documents.Documents(documents.find(files, exclude or [], seed))
    tokenizer, network = load(documents.expand(model), context, model_dtype)
    settings = WindowSettings(
        context=context,
        packed=packed,
        attend_across=attend_across,
        bos=bos,
        drop_special=drop_special,
        special_in_text=special_in_text,
    )
    cut = WindowCutter(settings, tokenizer)
    if skip_positions >= context:
        raise UserError(f"skip_positions {skip_positions} leaves nothing of windows of {context} tokens; lower it")
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    hooked = Hooked(network.to(place), hooks)
    linear = "onednn" if use_onednn(network) else "torch"
    row_filter = RowFilter(max_norm, skip_positions, drop_tokens or (), at_most=max_tokens)
    source = {
        "files": files,
        "exclude": exclude or [],
        **dataclasses.asdict(settings),
        **row_filter.settings,
        "model_dtype": model_dtype,
        "linear": linear,
        "seed": seed,
    }
    runs = hooked.probe(ordinary_token(tokenizer), context)
    run = WindowRunner(hooked, settings, batch_size, tokenizer.pad_token_id or 0, getattr(torch, dtype))
    last = -1
    with contextlib.ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        bar = stack.enter_context(progress(total=max_tokens, unit=" tokens", desc="harvest", smoothing=0.05))
        windows = cut(enumerate(texts))
        pieces = (run(group, bar.update) for group in _groups(windows, GROUP * batch_size, row_filter))
        for piece in row_filter(pieces):
            for hook, x_ND in piece.x.items():
                if hook not in writers:
                    writers[hook] = stack.enter_context(
                        ShardWriter(
                            folders[hook],
                            model=model,
                            hook=hook,
                            dtype=dtype,
                            d_in=x_ND.shape[1],
                            rows_per_shard=rows_per_shard,
                            source=source | ({"application": f"the first of {runs[hook]}"} if runs[hook] > 1 else {}),
                        )
                    )
                writers[hook].append(x_ND, **piece.columns)
            if len(ids := piece.columns["document_ids"]):
                last = int(ids[-1])
            # Rows that have been dropped since they were counted.
            bar.update(row_filter.passed - bar.n)
        if not row_filter.seen:
            raise UserError("the files hold no text; name others in `files`")
        for hook, writer in writers.items():
            writer.source |= {"documents": last + 1, "files_skipped": texts.skipped}
            writer.dropped = [row_filter.report(hook)]
    print(
        f"{row_filter.passed:,} rows of {last + 1} documents in {', '.join(map(str, folders.values()))}"
        + (f" ({texts.skipped} files were no UTF-8 text)" if texts.skipped else "")
    )
    for hook in hooks:
        if runs[hook] > 1:
            print(f"{hook} runs {runs[hook]} times in a pass: what it puts out first is stored")
        print(f"dropped for {hook}: {in_words(row_filter.report(hook))}")


def _groups(windows: Iterator["TextWindow"], size: int, row_filter: "RowFilter") -> Iterator[list["TextWindow"]]:
    """The windows, `size` at a time; the last ones no more than hold the rows that may still pass the filter."""
    while True:
        room = math.inf if row_filter.at_most is None else row_filter.at_most - row_filter.passed
        group: list[TextWindow] = []
        while room > 0 and len(group) < size and (window := next(windows, None)):
            group.append(window)
            room -= window.rows
        if not group:
            return
        yield group
