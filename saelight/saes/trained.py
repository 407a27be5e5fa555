"""Trained SAEs from their folders (docs/saes.md), and how one becomes the start of another training.

SAEs of other formats are read by `convert/`, whose `starts.py` makes the same of them.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch

from saelight.errors import UserError
from saelight.ops.normalisation import Normalisation
from saelight.saes.matryoshka import Matryoshka
from saelight.saes.sae import SAE, SAEConfig
from saelight.saes.sae_folder import MEANS, WEIGHTS, check_finite, describe, file_digest, published, read_weights


class Trained(NamedTuple):
    """An SAE as it was trained, and the units it was trained in."""

    sae: SAE
    normalisation: Normalisation
    target_normalisation: Normalisation | None
    """A transcoder's targets'."""


def read(folder: str | Path, allow_nan: bool = False) -> Trained:
    """The SAE of a folder, on the CPU, its weights as trained.

    No code is imported because of what the folder says.

    Args:
        allow_nan: Take weights that are not finite.

    Raises:
        UserError: when the folder holds no SAE, one of a newer saelight or of a variant that is not imported, one that was
            damaged, or weights that do not fit their config.
    """
    described = describe(folder)
    weights, config = read_weights(folder, described, allow_nan), described.config
    units = {}
    for side, name in MEANS.items():
        stated = getattr(config, side)
        units[side] = stated and Normalisation(stated.kind, stated.scale, mean_D=weights.pop(name, None))
    sae = described.sae_config.build(config.d_in, config.seed, config.d_out)
    sae.load_state_dict(weights, strict=False)
    return Trained(sae, **units)


def check_start(config: SAEConfig, start: SAE, d_in: int | None, d_out: int | None = None) -> None:
    """Whether a trained SAE, that at `config.init_from`, can be the start of this one: it is of the same variant (Matryoshka
    counts as its base) and has the same tensors. No weight is looked at.

    Args:
        d_in: Width of the activations; None where it is not known yet: then widths are not compared.
        d_out: Width of the targets of a transcoder.

    Raises:
        UserError: saying what differs.
    """
    folder, variants = config.init_from, [_variant(c).__name__ for c in (start.config, config)]
    if _variant(start.config) is not _variant(config):
        raise UserError(f"init_from {folder} is of another variant, {variants[0]}, not {variants[1]}: only its own goes on")
    if d_in is None:
        return
    trained_out = start.d_out if start.is_transcoder else None
    for width, had, have in (("d_in", start.d_in, d_in), ("d_out", trained_out, d_out)):
        if had != have:
            raise UserError(f"init_from {folder} was trained on data of {width} {had}, these have {have}")
    if start.d_sae != (d_sae := config.width(d_in)):
        raise UserError(f"init_from {folder} has d_sae {start.d_sae}, this SAE {d_sae}: set d_sae {start.d_sae}")
    with torch.device("meta"):
        this = config.build(d_in, 0, d_out)
    if differing := sorted(published(start).keys() ^ published(this).keys()):
        raise UserError(
            f"init_from {folder} has other tensors than this SAE ({', '.join(differing)}): set the fields that decide "
            "which there are as its own config does"
        )


def _variant(config: SAEConfig) -> type[SAEConfig]:
    return type(config.base if isinstance(config, Matryoshka) else config)


@torch.no_grad()
def start_from(
    sae: SAE, trained: Trained, normalisation: Normalisation, target_normalisation: Normalisation | None = None
) -> None:
    """Give `sae`, which is to train in these units, the weights of a trained one: x̂ stays the same function of raw
    activations. Where decoder rows have norm 1, latents change by the ratio of the scales. `trained` is used up.
    """
    origin, target = trained.sae, None
    if origin.is_transcoder:
        before, after = trained.target_normalisation or Normalisation(), target_normalisation or Normalisation()
        target = before.relative_to(after)
    origin.fold(trained.normalisation.relative_to(normalisation), target)
    if origin.unit_decoder or sae.unit_decoder:
        origin.fold_norms()
    check_finite(published(origin), f"init_from {sae.config.init_from}, in the units of these data")
    sae.load_state_dict(published(origin), strict=False)
    sae.initialised.fill_(True)


def fingerprint(folder: str | Path) -> str:
    """Identity of what is started from: a hash of the weights and their units, wherever they lie. Raises as `read`."""
    config = describe(folder).config
    units = [(stated := getattr(config, side)) and asdict(stated) for side in MEANS]
    content = file_digest(Path(folder) / WEIGHTS) + json.dumps(units, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]
