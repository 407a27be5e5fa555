"""Points against the real SAE classes: each field parsed as `saelight fit` would, each SAE built (without memory).

This is the one module of the sweep's front that needs torch; import it where points are checked.
"""

import importlib
import json
import re
from dataclasses import fields
from functools import cache
from typing import Any, NamedTuple

import torch
from jsonargparse import ArgumentError, ArgumentParser

import saelight.parsing.settings  # noqa: F401  (lets the parser read any variant)
from saelight import saes
from saelight.errors import UserError, did_you_mean
from saelight.parsing.messages import explain
from saelight.saes import SAEConfig

_SCALARS = {"lr", "weight_decay", "clip", "schedule", "seed", "sparsity", "betas", "sparsity_warmup", "dead_after"}
"""Fields that no size depends on: SAEs that differ only in them are built once."""


class CheckedSAE(NamedTuple):
    """A point's SAE, known to be one that trains."""

    config: SAEConfig
    d_sae: int
    parameters: int
    """Numbers it learns."""


class Checker:
    """Checks SAEs of data of one width.

    Args:
        d_in: Width of the activations, None where it is not known: then widths are not checked.
        d_out: Width of the targets of transcoders.
    """

    def __init__(self, d_in: int | None, d_out: int | None = None) -> None:
        self.d_in, self.d_out = d_in, d_out
        self._sizes: dict[str, tuple[int, int]] = {}

    def check(self, sae: dict[str, Any], where: str) -> CheckedSAE:
        """The SAE of `{class_path, **fields}`. Raises `UserError`, beginning with `where`, for what its class refuses."""
        cls = sae_class(sae, where)
        given = {key: value for key, value in sae.items() if key != "class_path"}
        known = field_names(cls)
        for key in given:
            if key not in known:
                raise UserError(f"{where}: {cls.__name__} has no field {key!r}{did_you_mean(key, known)}")
        try:
            values = {}
            for key, value in given.items():
                values[key] = _parsed(cls, key, json.dumps(value, sort_keys=True, default=str))
            config = cls(**values)
            config.check()
            d_sae, parameters = self._size(config, given)
        except (UserError, TypeError) as error:
            raise UserError(f"{where}: {error}") from None
        return CheckedSAE(config, d_sae, parameters)

    def _size(self, config: SAEConfig, given: dict[str, Any]) -> tuple[int, int]:
        if self.d_in is None:
            return 0, 0
        shape = {key: value for key, value in given.items() if key not in _SCALARS}
        key = json.dumps([type(config).__name__, shape], sort_keys=True, default=str)
        if key not in self._sizes:
            with torch.device("meta"):
                sae = config.build(self.d_in, 0, self.d_out)
            self._sizes[key] = sae.d_sae, sum(p.numel() for p in sae.parameters())
        return self._sizes[key]


def sae_class(sae: dict[str, Any], where: str) -> type[SAEConfig]:
    """The config class that `class_path` names, short or in full. Raises `UserError`."""
    path = sae.get("class_path")
    known = {
        name: c
        for name, c in vars(saes).items()
        if isinstance(c, type)
        and issubclass(c, SAEConfig)
        and c.__module__.startswith("saelight.saes.")
        and name not in ("SAEConfig", "Penalised")
    }
    if path is None:
        raise UserError(f"{where}: no sae.class_path: sweep it, or give a default under `sae:`; known: {', '.join(known)}")
    if path in known:
        return known[path]
    cls = _imported(str(path))
    if not (isinstance(cls, type) and issubclass(cls, SAEConfig)):
        raise UserError(f"{where}: no SAE class {path!r}{did_you_mean(str(path), known)}")
    return cls


def field_names(cls: type[SAEConfig]) -> set[str]:
    """What a class can be configured by."""
    return {f.name for f in fields(cls)}


def drop_unknown(defaults: dict[str, Any], sae: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """The defaults (dotted) whose field the point's class has, and the names of the others."""
    known = field_names(sae_class({"class_path": defaults.get("class_path")} | sae, where)) | {"class_path"}
    kept = {key: value for key, value in defaults.items() if key.partition(".")[0] in known}
    return kept, [key for key in defaults if key not in kept]


@cache
def _parsed(cls: type[SAEConfig], key: str, text: str) -> Any:
    """A field's value, of its right type. Raises `UserError`."""
    parser = _parser(cls)
    try:
        value = parser.instantiate(parser.parse_object({"sae": {key: json.loads(text)}})).sae
    except ArgumentError as error:
        raise UserError(re.sub(r'"?\bsae\.([\w.]+)"?', r"\1", explain(str(error), []))) from None
    return getattr(value, key)


@cache
def _parser(cls: type[SAEConfig]) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "sae")
    return parser


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None) if module else None
    except ImportError:
        return None
