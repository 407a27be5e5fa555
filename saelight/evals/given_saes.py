"""The SAEs that are to be evaluated, and where in which model each belongs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saelight.bars import bar
from saelight.convert import formats
from saelight.convert.reading import load
from saelight.data.harvest.text_windows import WindowSettings
from saelight.errors import UserError
from saelight.lm.causal_model import window_settings
from saelight.run.evaluation_file import writable
from saelight.saes.provenance import Provenance
from saelight.saes.sae import SAE

_MANY = 10
"""SAEs whose loading one may have to wait for."""


class Where(NamedTuple):
    """What is said of where SAEs belong; None of what they know themselves."""

    model: str | None
    hook: str | None
    target_hook: str | None
    context: int | None
    """Tokens of a window."""


class Spot(NamedTuple):
    """What SAEs have in common that are judged in one pass over the text."""

    model: str
    read: tuple[str, ...]
    """Names of the place that they take activations from, the first known one of which counts."""
    written: tuple[str, ...]
    """Names of the place whose activations theirs replace."""
    windows: WindowSettings
    """How the text is cut."""


class Given(NamedTuple):
    """An SAE to evaluate."""

    name: str
    sae: SAE
    path: Path | None
    """Its folder or file; None of one that is in memory alone."""

    @property
    def source(self) -> dict[str, Any]:
        """Where its activations came from, as far as it knows."""
        return (self.sae.provenance or Provenance()).source


def gather(saes: Sequence[str | Path | SAE]) -> list[Given]:
    """The SAEs of folders and files of any known format, of all of a run's or a sweep's folder, and those given themselves.

    Raises:
        UserError: A path holds none, one cannot be read, or nothing could be written beside it.
    """
    found: list[Given] = []
    for each in saes:
        if isinstance(each, SAE):
            found.append(Given((each.provenance or Provenance()).name, each, None))
            continue
        if isinstance(each, str) and "://" in each:
            # Elsewhere: nothing is written beside it.
            found.append(Given(each, load(each), None))
            continue
        path = Path(each)
        one = formats.at(path)
        inside = {path.name or str(path): one} if one else formats.inside(path)
        if not inside:
            raise formats.none_at(path)
        for place in inside.values():
            writable(place.path)
        progress = bar(total=len(inside), unit=" SAEs", desc="load", leave=False, disable=len(inside) < _MANY)
        with progress:
            for name, place in inside.items():
                found.append(Given(name, place.format.read(place.path, True, False), place.path))
                progress.update()
    if not found:
        raise UserError("which SAEs? give a trained SAE's folder, a run's or a sweep's")
    return _named_apart(found)


def by_spot(found: Sequence[Given], where: Where) -> list[tuple[Spot, list[Given]]]:
    """The SAEs that are judged together, those of a model one after another. Raises `UserError` as `spot_of` does."""
    spots: dict[str, tuple[Spot, list[Given]]] = {}
    for given in found:
        spot = spot_of(given, where)
        # Settings of windows know no equality.
        spots.setdefault(repr(spot), (spot, []))[1].append(given)
    return sorted(spots.values(), key=lambda spot: spot[0].model)


def spot_of(given: Given, where: Where) -> Spot:
    """Where an SAE belongs: as is said, or else as it says itself.

    Raises:
        UserError: Neither says which model, or which place in it.
    """
    source, target = given.source, (given.sae.provenance or Provenance()).target_source or {}
    own = source.get("model")
    model = where.model or (own if isinstance(own, str) and own not in ("", "synthetic") else None)
    if model is None:
        raise UserError(f"SAE {given.name!r} does not know its language model: give --model, a folder or a hub name")
    read = (where.hook,) if where.hook else _names(source)
    if not read:
        raise UserError(f"SAE {given.name!r} does not know where in the model it belongs: give --hook, as model.layers.3")
    written = read
    if given.sae.is_transcoder:
        written = (where.target_hook,) if where.target_hook else _names(target)
        if not written:
            raise UserError(f"transcoder {given.name!r} does not know its target's place: give --target_hook")
    elif where.target_hook:
        raise UserError(f"SAE {given.name!r} is no transcoder and has no target: drop --target_hook")
    return Spot(model, read, written, window_settings(source, where.context))


def _names(source: dict[str, Any]) -> tuple[str, ...]:
    return tuple(name for key in ("hook", "hook_name") if isinstance(name := source.get(key), str) and name)


def _named_apart(found: list[Given]) -> list[Given]:
    """SAEs of several runs may share a name: by their paths then."""
    names = [given.name for given in found]
    return [given._replace(name=str(given.path)) if names.count(given.name) > 1 and given.path else given for given in found]
