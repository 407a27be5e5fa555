"""A request to train, as a sweep file: one of the presets (configs/), with what the request says in place of what it has."""

import copy
import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from saelight import hook_names
from saelight.errors import UserError
from saelight.parsing import yaml_files
from saelight.serve.answers import TrainRequest
from saelight.serve.served_folders import links

PRESETS = ("optimized", "fast")
_DEEPEST = 6
"""Folders of activations in which links are looked for."""
_LARGEST = 64 * 2**20
"""Bytes of a shards' metadata.json."""
_ONE_LAYER = (".npy", ".npz", ".safetensors")
"""Files whose arrays have no layers, by their ending; what else has none, its reader says."""
_NOT_USED = "num_workers is not used: saelight reads ahead by a thread of its own"


class Planned(NamedTuple):
    """What a request comes to."""

    sweep: dict[str, Any]
    """A sweep file's content; its `base` stands beside it."""
    base: dict[str, Any]
    notes: list[str]
    """What the client should know."""


class DataRoots:
    """Where activations may be read: the folders that were given at start."""

    def __init__(self, given: Sequence[str | Path]) -> None:
        self.paths = [Path(os.path.realpath(path)) for path in given]
        for path in self.paths:
            if not path.is_dir():
                raise UserError(f"--data {path}: there is no such folder: name the one that holds your activations")

    def locate(self, asked: str) -> tuple[Path, str]:
        """The real path of `PATH`, `PATH:NAME` or `PATH@LAYER`, and what follows it.

        Raises `UserError`, in the same words for what is not there and for what is in none of the roots, and for a folder
        with links that lead out of them.
        """
        known = ((self._real(path), rest) for path, rest in ((asked, ""), _split(asked)))
        real, rest = next(((real, rest) for real, rest in known if real is not None), (None, ""))
        if real is None:
            where = ", ".join(map(str, self.paths))
            raise UserError(
                f"activation_data_path {asked[:200]!r} is not in {where}: name what is there, or start with --data"
            )
        for link in links(real, _DEEPEST) if real.is_dir() else []:
            if self._real(str(link)) is None:
                raise UserError(f"{link} is a link that leads out of what may be read: put the file in its place")
        return real, rest

    def _real(self, path: str) -> Path | None:
        """Where a path leads, if that is in a root; a relative one is looked for in each."""
        if "\0" in path:
            return None
        reals = [(root, Path(os.path.realpath(root / path))) for root in self.paths]
        inside = [real for root, real in reals if real == root or root in real.parents]
        return next((real for real in inside if real.exists()), None)


def plan(request: TrainRequest, preset: str, data: DataRoots, name: str) -> Planned:
    """The sweep that a request asks for. Raises `UserError`."""
    path, rest = data.locate(request.activation_data_path)
    notes = [] if request.num_workers is None else [_NOT_USED]
    address, said = _at_layer(path, rest, request.layer_idx)
    notes += said
    base = copy.deepcopy(preset_config(preset))
    saes = base["model"].pop("saes")
    for key, value in (("path", address), ("batch_size", request.batch_size), ("max_samples", request.max_samples)):
        if value is not None:
            base["data"]["init_args"][key] = value
    if request.max_epochs is not None:
        base["trainer"]["max_epochs"] = request.max_epochs
    runs = []
    for sae_name, sae in saes.items():
        fields = dict(sae["init_args"])
        if request.latent_dim is not None:
            fields.pop("expansion", None)
            fields["d_sae"] = request.latent_dim
        runs.append({"name": sae_name, "sae": {"class_path": sae["class_path"], **fields}})
    base["model"]["saes"] = saes
    return Planned({"name": name, "base": "base.yaml", "runs": runs}, base, notes)


def write_plan(planned: Planned, folder: Path) -> Path:
    """Write the sweep file and its base into a folder; the sweep file."""
    (folder / "base.yaml").write_text(yaml.safe_dump(planned.base))
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(planned.sweep))
    return file


def preset_config(preset: str) -> dict[str, Any]:
    """The config of a preset, as it comes with saelight."""
    text = (files("saelight.serve") / "presets" / f"{preset}.yaml").read_text(encoding="utf-8")
    content = yaml_files.parse(text)
    assert isinstance(content, dict)
    return content


def _split(asked: str) -> tuple[str, str]:
    """A path, and the `:NAME@LAYER` that follows it."""
    head, at, layer = asked.rpartition("@")
    rest = f"@{layer}" if at and layer.isdecimal() else ""
    folder, slash, last = (head if rest else asked).rpartition("/")
    file, colon, tensor = last.partition(":")
    return f"{folder}{slash}{file}", (f":{tensor}" if colon else "") + rest


def _at_layer(path: Path, rest: str, layer: int | None) -> tuple[str, list[str]]:
    """What `data.path` is to say for a layer, and notes."""
    if layer is None:
        return f"{path}{rest}", []
    if "@" in rest:
        if rest.rpartition("@")[2] != str(layer):
            raise UserError(
                f"activation_data_path says layer {rest.rpartition('@')[2]} and layer_idx {layer}: leave one out"
            )
        return f"{path}{rest}", []
    if path.suffix in _ONE_LAYER:
        return f"{path}{rest}", [f"layer_idx is not used: {path.name} has one layer"]
    hook = _hook(path)
    if hook is not None:
        return f"{path}{rest}", _compared(path, hook, layer)
    hooks = {child: _hook(child) for child in sorted(path.iterdir())} if path.is_dir() else {}
    of_layers = {hook_names.layer(hook): child for child, hook in hooks.items() if hook is not None}
    if of_layers:
        if layer not in of_layers:
            known = ", ".join(sorted(str(one) for one in of_layers if one is not None))
            raise UserError(f"{path} has shards of layers {known}, and none of layer {layer}: give layer_idx one of these")
        return f"{of_layers[layer]}{rest}", []
    return f"{path}{rest}@{layer}", []


def _compared(path: Path, hook: str, layer: int) -> list[str]:
    known = hook_names.layer(hook)
    if known is None:
        return [f"layer_idx is not used: {path} holds one hook, {hook!r}"]
    if known != layer:
        raise UserError(f"{path} holds {hook!r}, and layer_idx is {layer}: give {known}, or the path of the other layer")
    return []


def _hook(path: Path) -> str | None:
    """The hook of a folder of saelight's shards; None of what is none."""
    file = path / "metadata.json"
    try:
        if file.stat().st_size > _LARGEST:
            return None
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    hook = content.get("hook") if isinstance(content, dict) else None
    return hook if isinstance(hook, str) else None
