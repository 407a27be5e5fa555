"""What is known of an SAE's latents, read from its folder: without torch, and of a latent only what is asked for.

Shapes: F d_sae, C contexts, W tokens of a context.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open

from saelight.data.shards.strict_json import parse, shown, validated
from saelight.errors import UserError, one_line
from saelight.latents import latents_format as layout
from saelight.latents.known_latent import Context, Counted, Interval, Latent, Logit, Related, Token

_LARGEST = 256 * 2**20  # bytes of a JSON file; the texts of a vocabulary are some millions
_META = TypeAdapter(layout.Meta)
_TEXTS = TypeAdapter(dict[str, str])
_UNITS = 255


class Latents(Sequence[Latent]):
    """The latents of one SAE, by number: `latents[123]`.

    Whole columns are arrays, the file's tensors, whose names docs/latents.md lists: `latents.column("fired")` (F,).
    """

    def __init__(self, path: Path, meta: layout.Meta, texts: dict[int, str]) -> None:
        self.path, self.meta, self.texts = path, meta, texts
        self._open = safe_open(path / layout.TENSORS, framework="numpy")
        self._names = set(self._open.keys())

    @property
    def name(self) -> str:
        """The SAE's."""
        return self.meta["sae"]

    @property
    def rows(self) -> int:
        """Tokens gone through."""
        return self.meta["rows"]

    @property
    def has_tokens(self) -> bool:
        """The data had token ids, so that there are contexts to read."""
        return "tokens.ids" in self._names

    @cached_property
    def densities(self) -> np.ndarray:
        """The share of tokens at which each latent fires: float64 (F,)."""
        return self.column("fired") / max(1, self.rows)

    @cached_property
    def maxima(self) -> np.ndarray:
        """Each latent's largest |activation|: float32 (F,)."""
        return np.abs(self._open.get_slice("top.values")[:, 0])

    @cached_property
    def similarities(self) -> np.ndarray:
        """The cosine of each latent's decoder row with its nearest: float32 (F,)."""
        return self.column("near.cosines")[:, 0]

    @cached_property
    def fired_in_sample(self) -> np.ndarray:
        """At how many of the sampled rows each latent fires: int32 (F,)."""
        return self.column("together.fired")

    def column(self, name: str) -> np.ndarray:
        """A tensor of the file. Raises `UserError` for one that it has not."""
        if name not in self._names:
            raise UserError(f"{self.path} has no {name!r}; there are {', '.join(sorted(self._names))}")
        return self._open.get_tensor(name)

    def __len__(self) -> int:
        return self.meta["d_sae"]

    def __getitem__(self, index: Any) -> Any:
        """One latent, or those of a slice. Raises `UserError`, an `IndexError` too, for a number that none has."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise NoSuchLatent(f"{self.name} has no latent {index}: give 0 to {len(self) - 1}")
        return self._latent(int(index))

    def __iter__(self) -> Iterator[Latent]:
        return (self._latent(i) for i in range(len(self)))

    def text(self, id: int) -> str:
        """A token's text; `#id` where it is not known."""
        return self.texts.get(id, f"#{id}")

    def _row(self, name: str, i: int) -> Any:
        return self._open.get_slice(name)[i : i + 1][0] if name in self._names else np.empty(0)

    def _latent(self, i: int) -> Latent:
        fired, counts = int(self._row("fired", i)), self._row("histogram", i)
        top = self._contexts("top", i)
        inside = np.flatnonzero(counts)
        bins = range(inside[0], inside[-1] + 1) if len(inside) else ()
        logits = {kind: self._logits(kind, i) for kind in ("promoted", "suppressed")}
        return Latent(
            index=i,
            fired=fired,
            density=fired / max(1, self.rows),
            mean=float(self._row("total", i)) / max(1, fired),
            maximum=abs(top[0].value) if top else 0.0,
            histogram=[(2.0 ** (self.meta["lowest_octave"] + b), int(counts[b])) for b in bins],
            top=top,
            samples=self._intervals(i),
            tokens=self._tokens(i),
            token_error=int(self._row("tokens.error", i)) if self.has_tokens else 0,
            near=self._related("near", i),
            across=self._related("across", i),
            together=self._related("together", i),
            **logits,
        )

    def _contexts(self, kind: str, i: int) -> list[Context]:
        names = ("rows", "values", "documents", "positions", "gaps")
        flat = zip(*(self._row(f"{kind}.{name}", i).reshape(-1).tolist() for name in names), strict=True)
        units = self._row(f"{kind}.activations", i).reshape(-1, layout.WINDOW).tolist()
        ids = self._row(f"{kind}.tokens", i).reshape(-1, layout.WINDOW).tolist() if self.has_tokens else [None] * len(units)
        return [
            Context(row, value, _known(document), _known(position), *self._tokens_of(value, gaps, units[c], ids[c]))
            for c, (row, value, document, position, gaps) in enumerate(flat)
            if row >= 0
        ]

    def _tokens_of(self, value: float, gaps: int, units: list[int], ids: list[int] | None) -> tuple[int, list[Token]]:
        """The place of the strongest token, and all of a context."""
        there = [j for j in range(layout.WINDOW) if (units[j] if ids is None else ids[j] >= 0)]
        tokens = [
            Token(
                None if ids is None else ids[j],
                "" if ids is None else self.text(ids[j]),
                value * units[j] / _UNITS,
                j > there[0] and bool(gaps >> j & 1),
            )
            for j in there
        ]
        return there.index(layout.BEFORE), tokens

    def _intervals(self, i: int) -> list[Interval]:
        values = np.abs(self._row("samples.values", i))
        contexts = self._contexts("samples", i)
        filled = (self._row("samples.rows", i) >= 0).sum(-1)
        found, done = [], 0
        for k, n in enumerate(filled):
            if n:
                octave = int(np.frexp(values[k, 0])[1])
                found.append(Interval(2.0 ** (octave - 1), 2.0**octave, contexts[done : done + n]))
            done += n
        return found

    def _tokens(self, i: int) -> list[Counted]:
        ids, counts = self._row("tokens.ids", i), self._row("tokens.counts", i)
        return [Counted(int(t), self.text(int(t)), int(n)) for t, n in zip(ids, counts, strict=True) if t >= 0]

    def _related(self, kind: str, i: int) -> list[Related]:
        latents = self._row(f"{kind}.latents", i)
        saes = self._row("across.saes", i) if kind == "across" else None
        counts = self._row("together.counts", i) if kind == "together" else None
        if counts is None:
            cosines = self._row(f"{kind}.cosines", i)
        else:
            fired = self.fired_in_sample
            cosines = counts / np.sqrt(np.maximum(1, fired[i]) * np.maximum(1.0, fired[latents]))
        return [
            Related(
                None if saes is None else self.meta["others"][saes[k]],
                int(latents[k]),
                float(cosines[k]),
                None if counts is None else int(counts[k]),
            )
            for k in range(len(latents))
            if latents[k] >= 0
        ]

    def _logits(self, kind: str, i: int) -> list[Logit]:
        ids, logits = self._row(f"{kind}.ids", i), self._row(f"{kind}.logits", i)
        return [Logit(int(t), self.text(int(t)), float(x)) for t, x in zip(ids, logits, strict=True) if t >= 0]


def _known(number: int) -> int | None:
    return None if number < 0 else number


class NoSuchLatent(UserError, IndexError):
    """A number that is no latent's."""


def read(path: str | os.PathLike[str], check: bool = True) -> Latents:
    """What `saelight latents collect` has written for an SAE.

    Args:
        path: The SAE's folder (or file), or the folder `latents` in it.
        check: Compare the files with their checksums, which takes a second for 300 MB.

    Raises:
        UserError: where nothing was collected yet, or it is damaged, or of a newer saelight.
    """
    path = Path(path)
    folder = path if (path / layout.META).exists() else layout.folder_of(path)
    meta = _meta(folder, path)
    try:
        if check:
            for name, digest in meta.get("sha256", {}).items():
                if layout.digest(folder / name) != digest:
                    raise ValueError(f"{name} is not as it was written")
        texts = {}
        if (folder / layout.TEXTS).is_file():
            texts = {int(id): text for id, text in validated(_TEXTS, parse(_bytes(folder / layout.TEXTS))).items()}
        latents = Latents(folder, meta, texts)
        _check_tensors(latents)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder} is damaged ({one_line(error)}): {_AGAIN}") from None
    return latents


_AGAIN = "saelight latents collect --fresh makes it anew"


def _meta(folder: Path, given: Path) -> layout.Meta:
    path = folder / layout.META
    if not path.is_file():
        if not given.exists():
            raise UserError(f"{given} does not exist: name an SAE's folder, as runs/quickstart/saes/topk-4")
        if inner := sorted(file.parents[1] for file in given.glob(f"saes/*/{layout.FOLDER}/{layout.META}")):
            raise UserError(f"{given} holds latents of {len(inner)} SAEs: name one, as {inner[0]}")
        raise UserError(f"nothing is known of latents at {given} yet: saelight latents collect {given}")
    try:
        meta = parse(_bytes(path))
        version = meta.get("version") if isinstance(meta, dict) else None
        if isinstance(version, int) and version > layout.VERSION:
            raise UserError(f"{folder} is of a newer saelight (version {version}, this one reads {layout.VERSION}): upgrade")
        return validated(_META, meta)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({one_line(error)}): {_AGAIN}") from None


def _bytes(path: Path) -> bytes:
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path.name} has more than {_LARGEST:,} bytes")
    return path.read_bytes()


def _check_tensors(latents: Latents) -> None:
    """Raise `ValueError` unless the tensors are those that the format has."""
    names = latents._names
    wanted = layout.tensors(len(latents), "tokens.ids" in names, "promoted.ids" in names)
    if wanted.keys() != names:
        raise ValueError(f"its tensors are not the format's: {shown(sorted(wanted.keys() ^ names)[0])}")
    for name, (dtype, shape) in wanted.items():
        part = latents._open.get_slice(name)
        if (part.get_dtype(), tuple(part.get_shape())) != (_SHORT[dtype], shape):
            raise ValueError(f"{name}: expected {_SHORT[dtype]} {shape}, found {part.get_dtype()} {part.get_shape()}")
    saes = latents.column("across.saes")
    if saes.size and int(saes.max()) >= len(latents.meta["others"]):
        raise ValueError("across.saes numbers an SAE that is not listed")
    for name in ("near.latents", "together.latents"):
        if int(latents.column(name).max(initial=-1)) >= len(latents):
            raise ValueError(f"{name} names a latent that there is not")


_SHORT = {"int64": "I64", "int32": "I32", "float64": "F64", "float32": "F32", "uint8": "U8"}
"""numpy's dtypes as safetensors writes them."""
