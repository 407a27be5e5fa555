"""The pass over rows: every piece is read once, and the latents of every SAE on it are recorded."""

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from saelight.bars import bar
from saelight.data.harvest.text_pass import MOST, TextPass
from saelight.data.stopping import STOP, NoLongerWanted
from saelight.errors import UserError
from saelight.files import check_path
from saelight.latents import collected_saes, collection_state, latents_reading
from saelight.latents.collected_saes import Shown, Subject
from saelight.latents.finishing import finish
from saelight.latents.kept_columns import KeptPass
from saelight.latents.latent_record import LatentRecord
from saelight.latents.windowed_rows import Piece, pieces

_ELEMENTS = 1 << 24
"""Latents of a piece in memory, of one SAE at a time: 64 MB in float32."""
_LEAST, _MOST = 256, 4096
"""Rows of a piece."""
_SAVE_EVERY = 60.0
"""Seconds between two states on disk: what a kill costs."""
_KEPT = ".text"
"""Of a folder beside an SAE's state: what is known of the rows that a model has made."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How latents are collected."""

    data: str | None = None
    """The rows, or a fit's or a harvest's config, by which a model may make them. Default: those of each SAE's run."""
    tokens: int | None = None
    """Rows to go through, from the first on. Default: all."""
    seed: int = 0
    """Of the contexts that are drawn from each interval, and of the sample of rows."""
    tokenizer: str | None = None
    """A folder or hub name. Default: that of the model that the data name."""
    unembedding: str | None = None
    """A causal language model's folder or hub name, whose logits latents promote or suppress. Default: the data's model,
    where it is one that is on this machine."""
    fresh: bool = False
    """Replace what was collected before, whole or in part."""


@dataclass
class _Work:
    """An SAE that is looked at."""

    subject: Subject
    record: LatentRecord
    settings: dict[str, Any]
    """All that its result depends on."""

    @property
    def state(self) -> Path:
        return collection_state.path_of(self.subject.folder)

    def save(self) -> None:
        collection_state.save(self.state, self.record, self.settings)


def collect(paths: Sequence[str | Path], settings: Settings | None = None) -> list[str]:
    """Look at the latents of all SAEs at `paths` (SAEs, runs, sweeps), and write what they fire on beside each; what was
    done, in lines.

    What was stopped goes on where it was: at Ctrl-C after the piece at hand, at a kill from the last minute on.

    Raises:
        UserError: as `collected_saes.find`; for results that are there already; and for rows that cannot be read.
    """
    settings = settings or Settings()
    for path in (*paths, settings.data or ""):
        check_path(path, "the path")
    said: list[str] = []
    for shown in collected_saes.find(paths, settings.data):
        said += _collect(shown, settings)
    return list(dict.fromkeys(said))


def _collect(shown: Shown, settings: Settings) -> list[str]:
    shown = _keeping(shown, settings.fresh)
    n_rows = shown.rows.n_rows if settings.tokens is None else min(settings.tokens, shown.rows.n_rows)
    if n_rows > MOST:
        raise UserError(f"{shown.path} has {n_rows:,} rows, more than {MOST:,}: give --tokens at most that")
    widest = max(subject.sae.d_sae for subject in shown.subjects)
    size = max(_LEAST, min(_MOST, _ELEMENTS // widest))
    begun = [_begin(subject, shown, n_rows, size, settings) for subject in shown.subjects]
    works = [work for work in begun if work is not None]
    if not works:
        name = shown.subjects[0].name if len(shown.subjects) == 1 else f"{len(shown.subjects)} SAEs"
        same = f"the same {n_rows:,}" if n_rows < MOST else "all"
        return [f"the latents of {name} are there already, of {same} tokens: --fresh collects them anew"]
    for note in collected_saes.notes(shown):
        print(f"note: {note}", flush=True)
    first = min(work.record.next_row for work in works)
    if isinstance(shown.rows, KeptPass):
        first = min(first, shown.rows.kept)
    known = f" of {n_rows:,}" if n_rows < MOST else ""
    total = n_rows if known else None
    began, done = time.monotonic(), first
    with bar(total=total, initial=first, unit=" tokens", desc="latents", delay=1) as progress, _stops() as stop:
        saved = time.monotonic()
        # A model that runs for long gives up between two of its batches.
        with contextlib.suppress(NoLongerWanted):
            for piece in pieces(shown.rows, first, n_rows, size):
                _add(piece, works)
                done = piece.start + len(piece.x_BD)
                progress.update(len(piece.x_BD))
                if stop.is_set():
                    break
                if time.monotonic() - saved > _SAVE_EVERY:
                    _save(works, shown, done)
                    saved = time.monotonic()
        if stop.is_set():
            _save(works, shown, done)
            progress.close()
            print(f"stopped at {done:,}{known} tokens, which are kept: the same command goes on", flush=True)
            raise KeyboardInterrupt
    seconds = time.monotonic() - began
    _save(works, shown, done)
    remarks: dict[str, None] = {}
    for work in bar(iterable=works, unit=" SAEs", desc="neighbours, contexts", delay=2):
        others = [other for other in shown.subjects if other is not work.subject and other.is_beside(work.subject)]
        said = finish(work.subject, work.record, others, shown, settings.tokenizer, settings.unembedding)
        remarks |= dict.fromkeys(said)
        work.state.unlink()
    if isinstance(shown.rows, KeptPass):
        shown.rows.forget()
    speed = f" at {(done - first) / seconds:,.0f} tokens/s" if done > first and seconds > 0 else ""
    saes = f"{len(works)} SAEs" if len(works) > 1 else works[0].subject.name
    show = f"saelight latents show {works[0].subject.path}"
    return [*remarks, f"{done:,} tokens of {shown.path} through {saes}{speed}: {show}"]


def _keeping(shown: Shown, fresh: bool) -> Shown:
    """With rows that a model makes as they are read, one whose columns are kept beside the SAEs."""
    if not isinstance(shown.rows, TextPass):
        return shown
    states = [collection_state.path_of(subject.folder) for subject in shown.subjects]
    folders = [state.with_suffix(_KEPT) for state in states]
    folder = next((folder for folder in folders if folder.exists()), folders[0])
    try:
        rows = KeptPass(**vars(shown.rows), folder=folder)
    except UserError:
        if not fresh:
            raise
        shutil.rmtree(folder)
        for state in states:
            state.unlink(missing_ok=True)
        rows = KeptPass(**vars(shown.rows), folder=folder)
    return shown._replace(rows=rows)


def _save(works: list[_Work], shown: Shown, done: int) -> None:
    for work in works:
        work.save()
    # Last: an SAE that is ahead of it waits.
    if isinstance(shown.rows, KeptPass):
        shown.rows.save(done)


def _begin(subject: Subject, shown: Shown, n_rows: int, size: int, settings: Settings) -> _Work | None:
    """A record, empty or as it was when it was stopped; None where the same was done before."""
    if subject.folder.exists() and not settings.fresh:
        meta = latents_reading.read(subject.folder, check=False).meta
        done = meta["data"]["fingerprint"], meta["sae_digest"], meta["seed"]
        as_many = meta["rows"] == n_rows or (meta["rows"] < n_rows and meta["data"].get("whole", False))
        if as_many and done == (shown.rows.fingerprint, subject.digest, settings.seed):
            return None
        raise UserError(
            f"the latents of {subject.name} are in {subject.folder} already, of {meta['rows']:,} tokens of "
            f"{meta['data']['path']}: look at them with saelight latents show, or --fresh collects them anew"
        )
    depends = {
        "tokens": n_rows,
        "data": shown.rows.fingerprint,
        "weights": subject.digest,
        "seed": settings.seed,
        "rows of a piece": size,
    }
    work = _Work(subject, LatentRecord(subject.sae.d_sae, settings.seed), depends)
    try:
        collection_state.restore(work.state, work.record, depends)
    except UserError:
        # What is the same is as good as anew.
        if not settings.fresh:
            raise
        work.state.unlink()
        work.record = LatentRecord(subject.sae.d_sae, settings.seed)
    return work


@torch.inference_mode()
def _add(piece: Piece, works: list[_Work]) -> None:
    for work in works:
        # A kill between two SAEs' states leaves them at different rows: who is ahead waits.
        if work.record.next_row <= piece.start:
            work.record.add(piece, work.subject.sae.encode(piece.x_BD).float().numpy())


@contextlib.contextmanager
def _stops() -> Iterator[threading.Event]:
    """Set by Ctrl-C and SIGTERM, in place of what they do: a piece is recorded by all SAEs or by none."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    token = STOP.set(stop)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        STOP.reset(token)
