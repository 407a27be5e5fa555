"""Points against the real SAE classes: each field checked as `saelight fit` would, each SAE built (without memory).

This is the one module of the sweep's front that needs torch; import it where points are checked.
"""

import importlib
import json
from dataclasses import fields
from inspect import isabstract
from typing import Any, NamedTuple

import torch

import saelight.saes  # noqa: F401  (all of saelight's variants)
from saelight.errors import UserError, did_you_mean
from saelight.saes.common_fields import class_path
from saelight.saes.plain_data import configure, variants
from saelight.saes.sae import SAEConfig
from saelight.saes.trained import check_start
from saelight.sweep.plan.classes import is_dotted

_MOST_WEIGHTS = 2**50
"""Torch counts bytes in 64 bits, for SAEs without memory too."""


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
        try:
            config = configure(cls, given, _named)
            config.check()
            d_sae, parameters = self._size(config, given)
            if config.init_from is not None:
                from saelight.convert.starts import known  # with every format

                check_start(config, known(config.init_from).skeleton, self.d_in, self.d_out)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        return CheckedSAE(config, d_sae, parameters)

    def _size(self, config: SAEConfig, given: dict[str, Any]) -> tuple[int, int]:
        if self.d_in is None:
            return 0, 0
        shape = {key: value for key, value in given.items() if key not in config.without_size}
        key = json.dumps([class_path(type(config)), shape], sort_keys=True, default=str)
        if key not in self._sizes:
            try:
                if config.width(self.d_in) * self.d_in > _MOST_WEIGHTS:
                    raise UserError(f"no machine has room for d_sae {config.width(self.d_in)}: lower d_sae or expansion")
                with torch.device("meta"):
                    sae = config.build(self.d_in, 0, self.d_out)
            except UserError:
                raise
            except (OverflowError, RuntimeError, ValueError) as error:
                # A seed or a size that torch's integers do not hold.
                reason = str(error).partition("\n")[0]
                raise UserError(f"it cannot be built ({reason}): give smaller numbers") from None
            self._sizes[key] = sae.d_sae, sum(p.numel() for p in sae.parameters())
        return self._sizes[key]


def sae_class(sae: dict[str, Any], where: str) -> type[SAEConfig]:
    """The config class that `class_path` names, short or in full. Raises `UserError`."""
    path = sae.get("class_path")
    if path is None:
        known = ", ".join(kind.__name__ for kind in variants() if kind.__module__.startswith("saelight."))
        raise UserError(f"{where}: no sae.class_path: sweep it, or give a default under `sae:`; known: {known}")
    try:
        return _named(str(path))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def field_names(cls: type[SAEConfig]) -> set[str]:
    """What a class can be configured by."""
    return {f.name for f in fields(cls)}


def drop_unknown(defaults: dict[str, Any], sae: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """The defaults (dotted) whose field the point's class has, and the names of the others."""
    known = field_names(sae_class({"class_path": defaults.get("class_path")} | sae, where)) | {"class_path"}
    kept = {key: value for key, value in defaults.items() if key.partition(".")[0] in known}
    return kept, [key for key in defaults if key not in kept]


def _named(path: str) -> type[SAEConfig]:
    """The variant that a sweep file names: one of saelight's by its name, any by its import path."""
    known = {kind.__name__: kind for kind in variants() if kind.__module__.startswith("saelight.")}
    if path in known:
        return known[path]
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name, None) if is_dotted(module) else None
    except ImportError as error:
        raise UserError(f"no SAE class {path!r}: {error}") from None
    if not (isinstance(kind, type) and issubclass(kind, SAEConfig)) or isabstract(kind):
        raise UserError(f"no SAE class {path!r}{did_you_mean(path, known)}")
    return kind
