"""The SAEs of each place through one pass over the text, and what is written of them."""

import contextlib
import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from saelight.bars import bar
from saelight.data.harvest.corpus import Corpus
from saelight.data.harvest.documents import expand
from saelight.data.harvest.model_settings import ModelSettings
from saelight.data.harvest.text_settings import TextSettings
from saelight.errors import UserError
from saelight.evals.given_saes import Given, Spot, Where, by_spot, gather
from saelight.lm.causal_model import PROBED, CausalModel, batches, load_causal, windows_of
from saelight.lm.judging import Candidate, Judge, Judgement
from saelight.lm.places import find
from saelight.lm.row_rule import RowRule
from saelight.lm.substitution import Substitution
from saelight.run import evaluation_file
from saelight.saes.sae import SAE
from saelight.sweep.store import result_files
from saelight.sweep.store.sweep_folder import SweepFolder
from saelight.version import version


class How(NamedTuple):
    """Settings of a pass, as of `evaluate`."""

    max_tokens: int
    batch_size: int
    splice_special: bool
    per_position: bool


def run(saes: Any, where: Where, reads: TextSettings, runs: ModelSettings, how: How) -> list[dict[str, Any]]:
    """Judge SAEs, as `evaluate` describes. `UserError` as of it.

    Args:
        saes: As of `evaluate`.
        where: What is said of the SAEs' places.
        runs: How each model is loaded, its name apart, which is in `where` or the SAEs know.
    """
    asked = [saes] if isinstance(saes, str | Path | SAE) else list(saes)
    corpus = Corpus(reads)
    spots = by_spot(gather(asked), where)
    rows: list[dict[str, Any]] = []
    causal: CausalModel | None = None
    for spot, group in spots:
        # One after another: what of them is done is kept.
        if causal is None or causal.loaded.name != expand(spot.model):
            causal = load_causal(replace(runs, model=spot.model))
        windows = windows_of(corpus, causal, spot.windows, how.max_tokens)
        with _at(causal.device, group):
            substitution, candidates = _fitted(spot, group, causal, windows)
            special = [] if how.splice_special else causal.special
            with bar(total=sum(map(len, windows)), unit=" tokens", desc="evaluate", smoothing=0.05) as progress:
                judge = Judge(substitution, candidates, special, spot.windows.context, progress.update)
                for ids_BT, real_BT in batches(windows, how.batch_size, causal.device):
                    judge.add(ids_BT, real_BT)
                judgements = judge.finish()
        read, written = substitution.read.name, substitution.written.name
        common = {
            "model": spot.model,
            "hook": read,
            "target_hook": None if written == read else written,
            "text": reads.files,
            "context": spot.windows.context,
            "windows": len(windows),
            "tokens": judge.tokens,
            "splice_special": how.splice_special,
            "special_tokens": causal.special,
            "vocabulary": causal.loaded.vocabulary,
            "versions": {"saelight": version(), "torch": importlib.metadata.version("torch")},
        }
        rows += [_row(g, judgement, common, how.per_position) for g, judgement in zip(group, judgements, strict=True)]
    _write_sweeps(asked)
    return rows


@contextlib.contextmanager
def _at(device: torch.device, group: Sequence[Given]) -> Iterator[None]:
    """Have the SAEs on the model's device, and then where they were. Raises `UserError` where that has no room."""
    homes = [given.sae.W_dec.device for given in group]
    try:
        for given in group:
            given.sae.to(device)
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(f"the device has no room ({error}): lower batch_size, or evaluate fewer SAEs at once") from error
    finally:
        for given, home in zip(group, homes, strict=True):
            given.sae.to(home)


def _fitted(
    spot: Spot, group: Sequence[Given], causal: CausalModel, windows: list[list[int]]
) -> tuple[Substitution, list[Candidate]]:
    """The place, and the SAEs, once it is known that they fit each other. Raises `UserError`."""
    substitution = Substitution(causal.network, find(causal.network, spot.read), find(causal.network, spot.written))
    seen = substitution.check(torch.tensor([max(windows, key=len)[:PROBED]], device=causal.device))
    candidates = []
    for given in group:
        substitution.check_widths(seen, given.sae.d_in, given.sae.d_out, f"SAE {given.name!r}")
        candidates.append(Candidate(given.name, given.sae, RowRule.of(given.source)))
    return substitution, candidates


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
