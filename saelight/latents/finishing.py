"""From an SAE's record to its folder of latents: neighbours, contexts, logits and texts are added, the file is written.

Shapes: F d_sae, C contexts, W tokens of a context.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from saelight.files import replacing
from saelight.latents import context_cutting, decoder_kin, token_texts
from saelight.latents import latents_format as layout
from saelight.latents.collected_saes import Shown, Subject
from saelight.latents.latent_record import LatentRecord
from saelight.latents.mapped_tensors import map_tensors
from saelight.latents.unembedding import Unembedding, effects, unembedding

_BLOCK = 4096  # latents copied at a time
_NUMBERS = 1 << 20  # token ids looked at at a time


def finish(
    subject: Subject,
    record: LatentRecord,
    others: Sequence[Subject],
    shown: Shown,
    tokenizer: str | None = None,
    unembedding_of: str | None = None,
) -> list[str]:
    """Write the latents of an SAE into its folder, whole or not at all; what the user has to know of it.

    Args:
        others: The SAEs that its decoder rows are compared with.
        tokenizer: Whose texts to store. Default: that of the data's model.
        unembedding_of: The model whose logits to look at. Default: the data's.
    """
    data, W_dec_FD = shown.data, subject.sae.W_dec.detach()
    with_tokens = "token_ids" in data["columns"]
    said: list[str] = []
    model = unembedding_of or data["model"]
    found = unembedding(model) if model and with_tokens else None
    if isinstance(found, Unembedding) and found.W_VD.shape[1] != W_dec_FD.shape[1]:
        found = f"it is {found.W_VD.shape[1]} wide, {subject.name} puts out {W_dec_FD.shape[1]}"
    if isinstance(found, str) and unembedding_of:
        said.append(f"no logits by {unembedding_of}: {found}")
    with_logits = isinstance(found, Unembedding)
    with replacing(subject.folder) as partial:
        partial.mkdir()
        out = map_tensors(partial / layout.TENSORS, layout.tensors(record.d_sae, with_tokens, with_logits))
        out["fired"][:], out["total"][:], out["histogram"][:] = record.fired_F, record.total_F, record.histogram_FH
        _contexts(record, shown, out)
        near = decoder_kin.within(W_dec_FD, layout.NEIGHBOURS)
        out["near.latents"][:], out["near.cosines"][:] = near
        far = decoder_kin.across(W_dec_FD, [other.sae.W_dec.detach() for other in others], layout.NEIGHBOURS)
        out["across.saes"][:], out["across.latents"][:], out["across.cosines"][:] = far
        together = record.rows.together(layout.NEIGHBOURS)
        out["together.fired"][:], out["together.latents"][:], out["together.counts"][:] = together
        if with_tokens:
            out["tokens.ids"][:], out["tokens.counts"][:] = record.tokens.most(layout.TOKENS)
            out["tokens.error"][:] = record.tokens.error_F
        if isinstance(found, Unembedding):
            for kind, effect in zip(("promoted", "suppressed"), effects(W_dec_FD, found, layout.TOKENS), strict=True):
                n = effect.ids_FT.shape[1]
                out[f"{kind}.ids"][:] = -1
                out[f"{kind}.ids"][:, :n], out[f"{kind}.logits"][:, :n] = effect
        if with_tokens:
            said += _write_texts(partial / layout.TEXTS, tokenizer or data["model"], out)
        for name in [*out]:
            out.pop(name).flush()  # type: ignore[attr-defined]  # numpy's memmaps
        meta: layout.Meta = {
            "format": "saelight-latents",
            "version": 1,
            "sae": subject.name,
            "variant": type(subject.sae.config).__name__,
            "d_in": subject.sae.d_in,
            "d_sae": record.d_sae,
            "sae_digest": subject.digest,
            "rows": record.next_row,
            "data": {**data, "whole": record.next_row == shown.rows.n_rows},
            "seed": record.seed,
            "lowest_octave": record.lowest_octave or 0,
            "sampled_rows": len(record.rows.sizes_S),
            "others": [other.name for other in others],
            "unembedding": model if with_logits else None,
            "sha256": {path.name: layout.digest(path) for path in sorted(partial.iterdir())},
        }
        (partial / layout.META).write_text(json.dumps(meta, indent=1) + "\n")
    return said


def _contexts(record: LatentRecord, shown: Shown, out: dict[str, np.ndarray]) -> None:
    for start in range(0, record.d_sae, _BLOCK):
        block = slice(start, start + _BLOCK)
        owners = record.intervals()[block]
        for kind, kept, at in (("top", record.top, block), ("samples", record.samples, owners)):
            for name, column in kept.columns.items():
                out[f"{kind}.{name}"][block] = column[at]
    for kind in ("top", "samples"):
        rows = out[f"{kind}.rows"]
        filled = {name: out[f"{kind}.{name}"] for name in ("documents", "positions", "gaps")}
        flat = {name: column.reshape(-1) for name, column in filled.items()}
        for column in flat.values():
            column[:] = -1
        flat["gaps"][:] = 0
        windows = {}
        if f"{kind}.tokens" in out:
            windows["tokens"] = out[f"{kind}.tokens"].reshape(-1, layout.WINDOW)
            windows["tokens"][:] = -1
        context_cutting.cut(shown.rows, record.next_row, np.asarray(rows).reshape(-1), flat | windows)


def _write_texts(path: Path, tokenizer: str | None, out: dict[str, np.ndarray]) -> list[str]:
    """The texts of all ids that are stored."""
    if not tokenizer:
        return ["the data name no model, so tokens are shown as ids: --tokenizer FOLDER gives their texts"]
    known = token_texts.known(tokenizer)
    if isinstance(known, str):
        return [
            f"tokens are shown as ids, for the tokenizer of {tokenizer} cannot be had here ({known}): --tokenizer FOLDER"
        ]
    names = ("top.tokens", "samples.tokens", "tokens.ids", "promoted.ids", "suppressed.ids")
    ids: set[int] = set()
    for column in (out[name].reshape(-1) for name in names if name in out):
        for start in range(0, len(column), _NUMBERS):
            ids.update(np.unique(column[start : start + _NUMBERS]).tolist())
    path.write_text(
        json.dumps({str(id): text for id, text in token_texts.texts(known, sorted(ids)).items()}, ensure_ascii=False)
    )
    return []
