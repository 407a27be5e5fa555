"""`saelight.evaluate`: what a language model loses when SAEs stand in for its activations."""

import contextlib
import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from saelight.bars import bar
from saelight.data.harvest.corpus import Corpus
from saelight.data.harvest.documents import expand
from saelight.data.harvest.model_settings import ModelSettings
from saelight.data.harvest.text_settings import TextSettings
from saelight.errors import UserError
from saelight.evals.given_saes import Given, Spot, gather, spot_of
from saelight.lm.causal_model import CausalModel, batches, load_causal, windows_of
from saelight.lm.judging import Candidate, Judge, Judgement
from saelight.lm.places import find
from saelight.lm.row_rule import RowRule
from saelight.lm.substitution import Substitution
from saelight.ranges import LONGEST, SEED, Range, check_arguments
from saelight.run import evaluation_file
from saelight.saes.sae import SAE
from saelight.sweep.store import result_files
from saelight.sweep.store.sweep_folder import SweepFolder
from saelight.version import version

_PROBED = 32
"""Tokens of the window that a model is tried on."""


def evaluate(
    saes: str | Path | SAE | Sequence[str | Path | SAE],
    model: str | None = None,
    text: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    column: str | None = None,
    split: str = "train",
    subset: str | None = None,
    hook: str | None = None,
    target_hook: str | None = None,
    context: Annotated[int | None, Range(least=2, most=2**20)] = None,
    max_tokens: Annotated[int, Range(least=1, most=LONGEST)] = 20_480,
    batch_size: Annotated[int, Range(least=1, most=2**16)] = 8,
    splice_special: bool = False,
    per_position: bool = False,
    tokenizer: str | None = None,
    revision: str | None = None,
    model_dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    attention: str | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    seed: Annotated[int, SEED] = 0,
) -> list[dict[str, Any]]:
    """Judge SAEs on their language model: all of one hook in one pass over the text.

    Each gets a file `evaluation.json` in its folder, and a sweep's results are brought up to date. What it holds is
    returned, a dict for each SAE: `metrics` are defined in docs/evaluate.md.

    Args:
        saes: Folders of trained SAEs of any known format, of runs or of sweeps, all of whose SAEs are evaluated; or SAEs.
        model: A causal language model, as harvests take it: a name on the hub, a folder, a .gguf file. Default: the one that
            the SAEs' activations came from.
        text: What the model reads, as harvests take it: glob patterns of files, folders, hf:// data sets; `{stdlib}` is the
            folder of Python's standard library.
        exclude: Patterns of files to leave out, matched against the whole path.
        column: Column of JSON lines, Parquet and data sets that holds texts or lists of token ids.
        split: Split of data sets.
        subset: Configuration of hf:// data sets.
        hook: The module that the SAEs belong to, dotted or TransformerLens's. Default: as they say themselves.
        target_hook: Of transcoders: the module whose output theirs replaces.
        context: Tokens of a window. Default: as the SAEs' harvest had it, or 128.
        max_tokens: Tokens to read; the window in which they are reached counts whole.
        batch_size: Windows of a batch. It takes memory for a batch's logits three times.
        splice_special: Let the SAE stand in at BOS, EOS, PAD and SEP tokens too, and count them. false: there the model's
            own activations stay, and no mean counts them, as in SAELens and SAEBench.
        per_position: Keep losses, L0 and FVU by position in the window too.
        tokenizer: Name or folder of the tokenizer, where it is not with the model.
        revision: Branch, tag or commit of a model on the hub.
        model_dtype: What the model computes in.
        attention: Attention implementation of transformers. Default: transformers' own choice.
        device: auto (the first GPU, or else the CPU), or a torch device.
        trust_remote_code: Run Python code that comes with the model.
        seed: Seed of the order of files.

    Raises:
        UserError: for what cannot be read, is not known, or does not fit together.
    """
    settings = {"context": context, "max_tokens": max_tokens, "batch_size": batch_size, "seed": seed}
    check_arguments(evaluate, settings)
    asked = [saes] if isinstance(saes, str | Path | SAE) else list(saes)
    if not text:
        raise UserError("evaluate needs text: give --text, patterns of files, as 'texts/**/*.txt'")
    text = [text] if isinstance(text, str) else list(text)
    excluded = None if exclude is None else list(exclude)
    corpus = Corpus(TextSettings(text, exclude=excluded, column=column, split=split, subset=subset, seed=seed))
    spots: dict[Spot, list[Given]] = {}
    for given in gather(asked):
        spots.setdefault(spot_of(given, model, hook, target_hook, context), []).append(given)
    how: dict[str, Any] = {"tokenizer": tokenizer, "revision": revision, "model_dtype": model_dtype, "attention": attention}
    how |= {"device": device, "trust_remote_code": trust_remote_code}
    rows: list[dict[str, Any]] = []
    causal: CausalModel | None = None
    for spot, group in sorted(spots.items(), key=lambda item: item[0].model):
        # One after another: what of them is done is kept.
        if causal is None or causal.loaded.name != expand(spot.model):
            causal = load_causal(ModelSettings(spot.model, **how))
        windows = windows_of(corpus, causal, spot.windows, max_tokens)
        with _at(causal.device, group):
            judge, substitution = _judge(spot, group, causal, windows, splice_special)
            judgements = _run(judge, windows, batch_size, causal.device)
        read, written = substitution.read.name, substitution.written.name
        common = {
            "model": spot.model,
            "hook": read,
            "target_hook": None if written == read else written,
            "text": text,
            "context": spot.windows.context,
            "windows": len(windows),
            "tokens": judge.tokens,
            "splice_special": splice_special,
            "special_tokens": causal.special,
            "vocabulary": causal.loaded.vocabulary,
            "versions": {"saelight": version(), "torch": importlib.metadata.version("torch")},
        }
        rows += [_row(g, judgement, common, per_position) for g, judgement in zip(group, judgements, strict=True)]
    _write_sweeps(asked)
    return rows


@contextlib.contextmanager
def _at(device: torch.device, group: Sequence[Given]) -> Iterator[None]:
    """Have the SAEs on the model's device, and then where they were."""
    homes = [given.sae.W_dec.device for given in group]
    try:
        for given in group:
            given.sae.to(device)
        yield
    finally:
        for given, home in zip(group, homes, strict=True):
            given.sae.to(home)


def _judge(
    spot: Spot, group: Sequence[Given], causal: CausalModel, windows: list[list[int]], splice_special: bool
) -> tuple[Judge, Substitution]:
    """What judges the SAEs of one spot, once it is known that they fit the model. Raises `UserError`."""
    read, written = find(causal.network, spot.read), find(causal.network, spot.written)
    substitution = Substitution(causal.network, read, written)
    seen = substitution.check(torch.tensor([max(windows, key=len)[:_PROBED]], device=causal.device))
    candidates = []
    for given in group:
        for at, width, wanted in (
            (read, seen.x_BTD.shape[-1], given.sae.d_in),
            (written, seen.y_BTD.shape[-1], given.sae.d_out),
        ):
            if width != wanted:
                raise UserError(
                    f"SAE {given.name!r} has activations of width {wanted}, and {at.name} of {spot.model} has {width}: give "
                    "its own model and hook"
                )
        candidates.append(Candidate(given.name, given.sae, RowRule.of(given.source)))
    return Judge(substitution, candidates, [] if splice_special else causal.special, spot.windows.context), substitution


def _run(judge: Judge, windows: list[list[int]], batch_size: int, place: torch.device) -> list[Judgement]:
    with bar(total=sum(map(len, windows)), unit=" tokens", desc="evaluate", smoothing=0.05) as progress:
        try:
            for ids_BT, real_BT in batches(windows, batch_size, place):
                judge.add(ids_BT, real_BT)
                progress.update(int(real_BT.sum()))
            return judge.finish()
        except torch.OutOfMemoryError as error:
            raise UserError(f"the device has no room ({error}): lower batch_size, or evaluate fewer SAEs at once") from error


def _row(given: Given, judgement: Judgement, common: dict[str, Any], per_position: bool) -> dict[str, Any]:
    """All that is known of one SAE, which is written beside it."""
    content = {
        "name": given.name,
        "variant": type(given.sae.config).__name__,
        "d_sae": given.sae.d_sae,
        **common,
        "metrics": judgement.metrics,
        "density": judgement.density,
    } | ({"positions": judgement.positions} if per_position else {})
    if given.path is not None:
        evaluation_file.write(evaluation_file.beside(given.path), content)
    return content | {"folder": None if given.path is None else str(given.path)}


def _write_sweeps(asked: Iterable[Any]) -> None:
    """Bring the results of sweeps among what was asked for up to date."""
    for each in asked:
        if not isinstance(each, SAE) and (Path(each) / "index.json").is_file():
            folder = SweepFolder.existing(each)
            result_files.write(folder, folder.read())
