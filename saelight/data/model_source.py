"""Activations straight from a model that reads text while SAEs train: nothing is stored unless it is asked for.

Shapes: N rows, D width of a hook's rows.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from saelight.bars import bar
from saelight.data.harvest.harvest_settings import noted
from saelight.data.harvest.held_out import held_out, rows_of
from saelight.data.harvest.hook_rows import HookRows
from saelight.data.harvest.model_settings import ModelSettings
from saelight.data.harvest.model_stream import ModelStream
from saelight.data.harvest.shard_saver import ShardSaver, set_aside
from saelight.data.harvest.text_model import TextModel, open_text_model, text_digest
from saelight.data.harvest.text_pass import TextPass, text_pass
from saelight.data.harvest.text_settings import TextSettings
from saelight.data.harvest.text_windows import WindowSettings
from saelight.data.moments import Sums
from saelight.data.pairs import PairedRows
from saelight.data.remote.remote_url import Url, located
from saelight.data.row_filter import Limit, RowFilter
from saelight.data.sampled_sums import first_sums
from saelight.data.shards.disk import check_free
from saelight.data.shards.metadata import is_shards
from saelight.data.shards.reader import DTYPES, ShardedRows
from saelight.data.shards.writer import ShardWriter
from saelight.data.source import Description, Opened, RankRows, Rows, Source, Span, sides
from saelight.errors import UserError
from saelight.ranges import LONGEST, Range

_T = TypeVar("_T")
_RANK = "rank-{}"
"""Folder of one process's shards."""
_IDENTITY = "rows_identity"
"""Note of shards that were written on the way: which rows they are."""
_MAKE_ROWS = ("hooks", "model_batch_size", "model_dtype", "dtype", "max_norm", "skip_positions", "drop_tokens", "val_rows")
"""Settings that rows depend on, beside those of windows."""


@dataclass(eq=False)
class ModelSource(TextSettings, ModelSettings, WindowSettings, Source):
    """Activations straight from a model that reads text while SAEs train; of two hooks, pairs for transcoders."""

    evaluation_only: ClassVar[frozenset[str]] = Source.evaluation_only | {"save_to", "device", "shared_gb"}

    hooks: list[str]
    """Dotted path of the module whose outputs SAEs are trained on, such as [encoder.layer.3]. Of two, transcoders predict
    the second one's from the first one's."""
    _: KW_ONLY
    rows: Annotated[int, Range(least=1, most=LONGEST)]
    """Training rows, of all processes together: an epoch goes through the first so many of the text. A text with fewer is
    read again."""
    val_rows: Annotated[int, Range(least=0, most=2**24)] = 16_384
    """Validation rows, held in memory: of the first documents, none of which is trained on. 0: no validation."""
    buffer: Annotated[int, Range(least=1, most=2**40)] = 131_072
    """Rows that are mixed: a buffer is filled in the text's order and permuted, while the one before it is trained on. A
    larger one mixes more documents into each batch, and takes more memory (two and a half buffers)."""
    first_rows: Annotated[int, Range(least=2, most=2**30)] = 65_536
    """Rows that mean and scale are taken from, and what SAEs start from: the first training rows. They stay in memory."""
    statistics: str | None = None
    """Shards of the same hook (of two, the folder of both folders) that mean, scale and norm limit are taken from, such as
    an earlier run's `save_to`. Default: mean and scale of `first_rows`, the norm limit of the first 8,192."""
    save_to: str | None = None
    """Folder of shards to write on the way: what a harvest of the same text would write, for the next run to read. Of two
    hooks a folder in it for each, of several processes too."""
    shared_gb: Annotated[float, Range(least=0, most=1e6)] = 2.0
    """GB (10⁹ bytes) of memory for rows that groups of a sweep which train at once have of one another, of all of them
    together: 2.6 million rows of 384 numbers in bfloat16. What is further behind makes its rows itself; 0: each does."""
    model_batch_size: Annotated[int, Range(least=1, most=2**16)] = 32
    """Windows that the model is given at once. 32 of 128 tokens keep the CPU's caches warm; a GPU takes more."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """What rows are held in, and stored. bfloat16 is half the size, and its rounding is small beside any SAE's error."""
    max_norm: float | None = 10.0
    """Leave out rows whose norm is more than this many times the median norm (attention sinks); null keeps all."""
    skip_positions: Annotated[int, Range(least=0, most=2**24)] = 0
    """Leave out this many positions at the beginning of each window."""
    drop_tokens: list[int] | None = None
    """Leave out the rows of these token ids."""

    def check(self) -> None:
        super().check()
        if not 1 <= len(self.hooks) <= 2 or len(set(self.hooks)) < len(self.hooks):
            raise UserError(
                f"data.hooks names one hook, or a transcoder's two, got {', '.join(self.hooks) or 'none'}; train others in "
                "runs of their own"
            )
        if self.skip_positions >= self.context:
            raise UserError(
                f"data.skip_positions {self.skip_positions} leaves nothing of windows of {self.context} tokens; lower it"
            )
        if self.save_to is not None and isinstance(located(self.save_to), Url):
            raise UserError(
                f"data.save_to {self.save_to} is a URL, and what is saved on the way lies on a disk; name a folder, or "
                "write to the URL with `saelight shards harvest`"
            )
        RowFilter(**self._rows_kept)

    def open(self) -> Opened:
        """Load the model, and run it over the held-out documents and the first rows. Raises `UserError`."""
        if self.save_to is not None and not self._is_ours(Path(self.save_to)):
            check_free(Path(self.save_to))
        model, documents = self._model, held_out(self._model, self.val_rows)
        stream = ModelStream(model, self._n_rows, len(documents), limits=self._limits)
        n_first = min(self.first_rows, self._n_rows)
        with bar(total=n_first, unit=" rows", desc="first rows") as progress:
            stream.on_batch = progress.update
            stream.keep_first(n_first)
            stream.on_batch = lambda rows: None
        rows = self._rows_of(stream)
        sums: list[Sums | None] = [None]
        if self._statistics is not None:
            sums = [side.sums for side in self._statistics]
        elif self.normalise != "none":
            sums = [first_sums(side, n_first) for side in sides(rows) if side is not None]
        val = None
        if documents:
            made = rows_of(model, documents, self.val_rows, stream.limits, self._fingerprint("validation"))
            val_rows = _together([made[hook] for hook in self.hooks])
            val = Span(val_rows, 0, val_rows.n_rows)
        return Opened(
            rows,
            self._n_rows,
            val,
            sums[0],
            target_sums=sums[-1],
            buffer=self.buffer,
            first_rows=n_first,
            of_rank=partial(self._of_rank, stream, len(documents)),
        )

    def once(self) -> TextPass:
        """The first hook's rows as the first epoch of one process has them, of the text once, with their columns.

        Raises `UserError` as `open`, which runs the model over other rows too.
        """
        hook, first = self.hooks[0], len(held_out(self._model, self.val_rows))
        stream = ModelStream(self._model, self._n_rows, first, limits=self._limits, once=True)
        return text_pass(stream, self._model, hook, self._provenance(hook), self._fingerprint(hook))

    def describe(self) -> Description:
        """Widths, rows and bytes, without running the model over the text."""
        rows = self._rows_of(ModelStream(self._model, self._n_rows))
        held = (min(self.first_rows, self._n_rows) + self.val_rows) * rows.d_in * rows.dtype.itemsize
        described = self._description(rows, self._n_rows, self.buffer, held)
        there = "gpu_bytes" if self._model.run.hooked.device.type == "cuda" else "stream_bytes"
        return described._replace(**{there: getattr(described, there) + self._model.bytes})

    def identity(self) -> dict[str, Any]:
        """The settings that training depends on, the model's weights, and how the text begins."""
        settings = self._settings(self.evaluation_only)
        try:
            return settings | {"data": {"weights": self._model.weights, "text": text_digest(self._model.documents)}}
        except UserError:
            return settings

    @cached_property
    def _model(self) -> TextModel:
        """The model, loaded, and the text, found. Raises `UserError`."""
        return open_text_model(
            _part(ModelSettings, self),
            _part(TextSettings, self),
            _part(WindowSettings, self),
            self.hooks,
            batch_size=self.model_batch_size,
            dtype=DTYPES[self.dtype],
            rows_kept=self._rows_kept,
            shared_bytes=int(self.shared_gb * 1e9),
        )

    @property
    def _rows_kept(self) -> dict[str, Any]:
        return {"max_norm": self.max_norm, "skip_positions": self.skip_positions, "drop_tokens": self.drop_tokens or ()}

    @property
    def _n_rows(self) -> int:
        return self.rows if self.max_samples is None else min(self.rows, self.max_samples)

    def _rows_of(self, stream: ModelStream) -> Rows:
        model = self._model
        return _together(
            [
                HookRows(stream, hook, model.widths[hook], model.run.dtype, self._fingerprint(hook), self._provenance(hook))
                for hook in self.hooks
            ]
        )

    def _of_rank(self, whole: ModelStream, first: int, rank: int, world: int) -> RankRows:
        """A rank's own documents, of those that follow on `first`."""
        n_rows = self._n_rows // world
        if next(itertools.islice(self._model.documents, first + world - 1, None), None) is None:
            raise UserError(f"the text has fewer documents to train on than there are processes, {world}; use fewer")
        stream = whole if world == 1 else ModelStream(self._model, n_rows, first, rank, world, whole.limits)
        if self.save_to is not None:
            folder = Path(self.save_to) / _RANK.format(rank) if world > 1 else Path(self.save_to)
            folders = {hook: folder / hook if len(self.hooks) > 1 else folder for hook in self.hooks}
            stream.saver = ShardSaver({hook: self._writer(hook, out) for hook, out in folders.items()}, folders, n_rows)
        return RankRows(self._rows_of(stream), n_rows, stream)

    def _writer(self, hook: str, out: Path) -> ShardWriter:
        return ShardWriter(
            out,
            model=self.model,
            hook=self._model.named(hook),
            dtype=self.dtype,
            d_in=self._model.widths[hook],
            source=self._provenance(hook) | {_IDENTITY: self._fingerprint(hook)},
        )

    def _is_ours(self, folder: Path) -> bool:
        """Whether a folder has what this run wrote before it was interrupted."""
        hook = self.hooks[0] if len(self.hooks) > 1 else ""
        outs = [folder / hook, folder / _RANK.format(0) / hook]
        there = next((path for out in outs for path in (out, set_aside(out)) if is_shards(path)), None)
        return there is not None and ShardedRows(there).known.notes.get(_IDENTITY) == self._fingerprint(self.hooks[0])

    def _stored(self, folder: str, hook: str) -> ShardedRows:
        """The shards that statistics of a hook are taken from."""
        rows = ShardedRows(Path(folder) / hook if len(self.hooks) > 1 else folder)
        if rows.d_in != self._model.widths[hook] or rows.metadata["hook"] != self._model.named(hook):
            raise UserError(
                f"data.statistics {rows.path} is of {rows.metadata['hook']}, {rows.d_in} wide, and {hook} is "
                f"{self._model.widths[hook]} wide; name shards of the same hook"
            )
        return rows

    @cached_property
    def _statistics(self) -> list[ShardedRows] | None:
        """The shards that statistics are taken from, a hook's each."""
        return None if self.statistics is None else [self._stored(self.statistics, hook) for hook in self.hooks]

    @property
    def _limits(self) -> dict[str, Limit] | None:
        """The norm limits, where they are known before the model has run."""
        return None if self._statistics is None else dict(zip(self.hooks, map(_limit, self._statistics), strict=True))

    def _provenance(self, hook: str) -> dict[str, Any]:
        """What exports and shards say of the rows."""
        applied = {"application": f"the first of {n}"} if (n := self._model.runs[hook]) > 1 else {}
        return {
            "model": self.model,
            "hook": self._model.named(hook),
            **noted(self, self, self),
            **self._rows_kept,
            "linear": self._model.linear,
            **applied,
        }

    def _fingerprint(self, of: str) -> str:
        """Identity of some rows, their text apart."""
        settings = {name: getattr(self, name) for name in _MAKE_ROWS} | asdict(_part(WindowSettings, self))
        said = json.dumps([of, self._model.weights, settings], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:32]


def _part(kind: type[_T], settings: Any) -> _T:
    """The settings of one kind among those of a source."""
    return kind(**{field.name: getattr(settings, field.name) for field in fields(kind)})  # type: ignore[arg-type]


def _together(of_hooks: Sequence[Rows]) -> Rows:
    """One hook's rows, or pairs of two hooks'."""
    return of_hooks[0] if len(of_hooks) == 1 else PairedRows(*of_hooks)


def _limit(rows: ShardedRows) -> Limit:
    """The norm limit of stored rows. Raises `UserError` where they say none."""
    for report in reversed(rows.known.dropped):
        return Limit(report["median_norm"], math.inf if report["limit"] is None else report["limit"])
    raise UserError(
        f"data.statistics {rows.path} says no norm limit, as a harvest's shards do; name others, or leave it out"
    )
