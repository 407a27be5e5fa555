"""Run a transformers model over text files and write the outputs of chosen modules as shards.

Shapes: B windows of a batch, T tokens, N rows, D width.
"""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from saelight.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from saelight.data.harvest.hooked import Hooked

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
    drop_special: bool = True,
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
        batch_size: Windows of a batch. 32 of 128 tokens keep the CPU's caches warm; a GPU takes more.
        max_tokens: Rows to write at most, reached exactly when there is text enough. Default: all text.
        dtype: What rows are stored in. bfloat16 is half the size, and its rounding is small beside any SAE's error.
        drop_special: Leave out the rows of the special tokens that the tokenizer adds. Padding is always left out.
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
    from tqdm import tqdm

    from saelight.data.harvest import documents
    from saelight.data.harvest.hooked import Hooked
    from saelight.data.harvest.onednn_linear import use_onednn
    from saelight.data.shards.writer import ShardWriter

    texts = documents.Documents(documents.find(files, exclude or [], seed))
    tokenizer, network = _load(documents.expand(model), context, model_dtype)
    place = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    hooked = Hooked(network.to(place), hooks)
    linear = "onednn" if use_onednn(network) else "torch"
    windows = _windows(texts, tokenizer, context, drop_special)
    source = {
        "files": files,
        "exclude": exclude or [],
        "context": context,
        "drop_special": drop_special,
        "model_dtype": model_dtype,
        "linear": linear,
        "seed": seed,
    }
    rows, last = 0, -1
    with contextlib.ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        bar = stack.enter_context(tqdm(total=max_tokens, unit=" tokens", unit_scale=True, desc="harvest", smoothing=0.05))
        while (group := list(itertools.islice(windows, _BATCHES * batch_size))) and rows != max_tokens:
            room = sum(len(w.kept) for w in group) if max_tokens is None else max_tokens - rows
            group = _fit(group, room)
            outputs = _run(hooked, group, batch_size, tokenizer.pad_token_id or 0, getattr(torch, dtype), bar)
            columns = {
                "token_ids": torch.tensor([w.ids[i] for w in group for i in w.kept], dtype=torch.int32),
                "positions": torch.tensor([i for w in group for i in w.kept], dtype=torch.int32),
                "document_ids": torch.tensor([w.document for w in group for _ in w.kept], dtype=torch.int64),
            }
            for hook, x_ND in outputs.items():
                if hook not in writers:
                    writers[hook] = stack.enter_context(
                        ShardWriter(
                            folders[hook],
                            model=model,
                            hook=hook,
                            dtype=dtype,
                            d_in=x_ND.shape[1],
                            rows_per_shard=rows_per_shard,
                            source=source,
                        )
                    )
                writers[hook].append(x_ND, **columns)
            rows, last = rows + len(columns["token_ids"]), group[-1].document
        if not rows:
            raise UserError("the files hold no text; name others in `files`")
        for writer in writers.values():
            writer.source |= {"documents": last + 1, "files_skipped": texts.skipped}
    print(
        f"{rows:,} rows of {last + 1} documents in {', '.join(map(str, folders.values()))}"
        + (f" ({texts.skipped} files were no UTF-8 text)" if texts.skipped else "")
    )


class _Window(NamedTuple):
    """What the model sees at once."""

    document: int
    ids: list[int]
    kept: list[int]
    """Positions whose rows are written."""


def _load(model: str, context: int, dtype: str) -> tuple[Any, Any]:
    """The tokenizer and the model, in eval mode."""
    try:
        import transformers
    except ImportError:
        raise UserError("harvest runs models with transformers; pip install 'saelight[harvest]'") from None
    import torch

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        network = transformers.AutoModel.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
    except (OSError, ValueError) as e:
        reason = str(e).strip().splitlines()[0]
        raise UserError(f"cannot load model {model!r}: {reason}; give a folder or a hub name") from e
    if not tokenizer.is_fast:
        raise UserError(f"model {model!r} has no fast tokenizer; choose one with a tokenizer.json")
    special = tokenizer.num_special_tokens_to_add()
    limit = getattr(network.config, "max_position_embeddings", None) or context
    if not special < context <= limit:
        raise UserError(f"context must be in [{special + 1}, {limit}] for model {model!r}, got {context}")
    # Longer texts than the model takes are cut into windows right here: its warning would be wrong.
    tokenizer.model_max_length = int(1e30)
    return tokenizer, network


def _windows(documents: Any, tokenizer: Any, context: int, drop_special: bool) -> Iterator[_Window]:
    """The documents' windows in order, each with the tokenizer's special tokens, tokenized some documents at a time."""
    number = 0
    documents = iter(documents)
    while texts := list(itertools.islice(documents, _DOCUMENTS)):
        cut = tokenizer(
            texts,
            truncation=True,
            max_length=context,
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
        )
        for ids, special, text in zip(
            cut["input_ids"], cut["special_tokens_mask"], cut["overflow_to_sample_mapping"], strict=True
        ):
            if kept := [i for i, s in enumerate(special) if not (s and drop_special)]:
                yield _Window(number + text, ids, kept)
        number += len(texts)


def _fit(group: list[_Window], room: int) -> list[_Window]:
    """The first windows of `group` with `room` kept tokens at most; of the last one, some may be left out."""
    fitting = []
    for window in group:
        if room <= 0:
            break
        fitting.append(window._replace(kept=window.kept[:room]))
        room -= len(window.kept)
    return fitting


def _run(hooked: "Hooked", group: list[_Window], batch_size: int, pad: int, dtype: Any, bar: Any) -> dict[str, "Tensor"]:
    """The kept rows of a group of windows, in their order: hook -> (N, D). Windows of like length share a batch."""
    import torch

    by_length = sorted(range(len(group)), key=lambda i: len(group[i].ids))
    place = next(hooked.model.parameters()).device
    pieces: dict[str, list] = {hook: [None] * len(group) for hook in hooked.hooks}
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
                pieces[hook][i] = x_BTD[b, group[i].kept]
        bar.update(sum(len(group[i].kept) for i in chosen))
    return {hook: torch.cat(rows_of_windows) for hook, rows_of_windows in pieces.items()}
