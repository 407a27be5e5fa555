"""`saelight.json`: what another format cannot hold of an SAE, beside it, for the way back.

The weights are the format's own. This file says which variant they were, with all its fields, and where the SAE came from.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from saelight.convert.files_of_tensors import json_file
from saelight.convert.parts import TOPK_KINDS, Parts, rows_are_unit, variant
from saelight.errors import UserError
from saelight.saes.plain_data import configure, from_spec
from saelight.saes.provenance import Provenance
from saelight.saes.sae import SAE, SAEConfig

NAME = "saelight.json"
_FORMAT: Literal["saelight-beside"] = "saelight-beside"
_VERSION = 1


@dataclass(kw_only=True)
class Beside:
    """The file, key for key: those of an SAE's `config.json` (docs/saes.md) that no weight tells."""

    format: Literal["saelight-beside"] = _FORMAT
    version: int = _VERSION
    class_path: str
    init_args: dict[str, Any]
    d_in: int
    d_sae: int
    d_out: int | None
    name: str
    seed: int
    source: dict[str, Any]
    target_source: dict[str, Any] | None
    training: dict[str, Any]
    versions: dict[str, Any]
    commit: str | None


def write(sae: SAE, provenance: Provenance, path: Path) -> None:
    """Write the file of an SAE that is as the format has it."""
    d_out = sae.d_out if sae.is_transcoder else None
    content = Beside(**sae.config.spec(), d_in=sae.d_in, d_sae=sae.d_sae, d_out=d_out, **asdict(provenance))
    path.write_text(json.dumps(asdict(content), indent=2) + "\n")


def restored(parts: Parts) -> Parts:
    """The parts as the SAE that was written, where a file beside them says which it was.

    Raises:
        UserError: for a file that is damaged, or that is not these weights'.
    """
    path = parts.beside
    if path is None or not path.exists():
        return parts
    plain = json_file(path)
    if plain.get("format") != _FORMAT:
        return parts
    if isinstance(version := plain.get("version"), int) and version > _VERSION:
        raise UserError(
            f"{path} is of a newer saelight (version {version}): upgrade, or remove it to read the weights alone"
        )
    try:
        beside = configure(Beside, plain)
        config = from_spec({"class_path": beside.class_path, "init_args": beside.init_args})
    except UserError as error:
        raise UserError(f"{path} does not describe an SAE: {error}; without it the weights alone are read") from None
    widths = (beside.d_in, beside.d_sae, beside.d_out)
    if widths != (parts.d_in, parts.config.width(parts.d_in), parts.d_out) or not _same_kind(config, parts):
        raise UserError(f"{path} is not these weights': remove it, and they are read alone")
    provenance = Provenance(**{name: getattr(beside, name) for name in Provenance.__dataclass_fields__})
    return replace(parts, config=config, provenance=provenance)


def _same_kind(config: SAEConfig, parts: Parts) -> bool:
    """Whether weights that were read as `parts.config` can be those of `config`."""
    was, found = variant(config), variant(parts.config)
    if was in TOPK_KINDS and found in TOPK_KINDS and getattr(config, "k", 0) != getattr(parts.config, "k", 0):
        return False
    if getattr(config, "decoder", "unit") == "free" and not rows_are_unit(parts.tensors["W_dec"]):
        return False
    # BatchTopK goes out as JumpReLU.
    return was == found or (was == "BatchTopK" and found == "JumpReLU")
