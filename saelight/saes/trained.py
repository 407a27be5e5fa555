"""Trained SAEs from their folders (docs/saes.md), and how one becomes the start of another training.

This is where SAEs of another format will come in: whatever gives a `Trained` can be started from.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from saelight.errors import UserError
from saelight.ops.normalisation import Normalisation
from saelight.saes.matryoshka import Matryoshka
from saelight.saes.plain_data import from_spec
from saelight.saes.sae import SAE, SAEConfig

FORMAT = "saelight-sae"
VERSION = 1
CONFIG, WEIGHTS = "config.json", "sae.safetensors"
MEANS = {side: f"{side}.mean" for side in ("normalisation", "target_normalisation")}
"""By their keys in the config: the names of the means beside the weights."""


class Trained(NamedTuple):
    """An SAE as it was trained, and the units it was trained in."""

    sae: SAE
    normalisation: Normalisation
    target_normalisation: Normalisation | None
    """A transcoder's targets'."""


def published(sae: SAE) -> dict[str, Tensor]:
    """The tensors that inference needs."""
    return {name: tensor for name, tensor in sae.state_dict().items() if name not in sae.training_state}


def read(folder: str | Path) -> Trained:
    """The SAE of a folder, on the CPU, its weights as trained.

    No code is imported because of what the folder says.

    Raises:
        UserError: when the folder holds no SAE, one of a newer saelight or of a variant that is not imported, or weights
            that do not fit their config.
    """
    config, sae_config = _read_config(folder)
    try:
        weights = load_file(Path(folder) / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder} cannot be read: {error}") from None
    sae = sae_config.build(config["d_in"], config["seed"], config["d_out"])
    expected = {name: tensor.shape for name, tensor in published(sae).items()}
    for (side, name), width in zip(MEANS.items(), (sae.d_in, sae.d_out), strict=True):
        if config[side] and config[side]["kind"] == "standard":
            expected[name] = torch.Size([width])
    found = {name: tensor.shape for name, tensor in weights.items()}
    if expected != found:
        raise UserError(f"{folder}: {WEIGHTS} does not fit {CONFIG}: expected {expected}, found {found}")
    units = {
        side: config[side] and Normalisation(**config[side], mean_D=weights.pop(name, None)) for side, name in MEANS.items()
    }
    sae.load_state_dict(weights, strict=False)
    return Trained(sae, **units)


def _read_config(folder: str | Path) -> tuple[dict[str, Any], SAEConfig]:
    folder = Path(folder)
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise UserError(f"{folder} holds no trained SAE: {file} is missing")
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} cannot be read: {error}") from None
    if config.get("format") != FORMAT:
        raise UserError(f"{folder}/{CONFIG} is not a {FORMAT} config")
    if config["version"] > VERSION:
        raise UserError(f"{folder} is of a newer saelight (format {config['version']}, this one reads {VERSION}): upgrade")
    try:
        return config, from_spec({key: config.get(key) for key in ("class_path", "init_args")})
    except UserError as error:
        raise UserError(f"{folder}/{CONFIG} does not describe an SAE: {error}") from None


def check_start(config: SAEConfig, d_in: int | None, d_out: int | None = None) -> None:
    """Whether the SAE at `config.init_from` can be the start of this one: it is of the same variant (Matryoshka counts as
    its base) and has the same tensors. No weight is read.

    Args:
        d_in: Width of the activations; None where it is not known yet: then widths are not compared.
        d_out: Width of the targets of a transcoder.

    Raises:
        UserError: saying what differs.
    """
    folder = config.init_from
    if folder is None:
        return
    there, trained = _read_config(folder)
    variants = [_variant(c).__name__ for c in (trained, config)]
    if _variant(trained) is not _variant(config):
        raise UserError(f"init_from {folder} is of another variant, {variants[0]}, not {variants[1]}: only its own goes on")
    if d_in is None:
        return
    for width, have in (("d_in", d_in), ("d_out", d_out)):
        if there[width] != have:
            raise UserError(f"init_from {folder} was trained on data of {width} {there[width]}, these have {have}")
    if there["d_sae"] != (d_sae := config.width(d_in)):
        raise UserError(f"init_from {folder} has d_sae {there['d_sae']}, this SAE {d_sae}: set d_sae {there['d_sae']}")
    with torch.device("meta"):
        names = [set(published(c.build(d_in, 0, d_out))) for c in (trained, config)]
    if differing := sorted(names[0] ^ names[1]):
        raise UserError(
            f"init_from {folder} has other tensors than this SAE ({', '.join(differing)}): set the fields that decide "
            f"which there are as {folder}/{CONFIG} does"
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
    sae.load_state_dict(published(origin), strict=False)
    sae.initialised.fill_(True)


def fingerprint(folder: str | Path) -> str:
    """Identity of what is started from: a hash of the weights and their units, wherever they lie. Raises as `read`."""
    config, _ = _read_config(folder)
    with (Path(folder) / WEIGHTS).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps([config[side] for side in MEANS], sort_keys=True).encode())
    return digest.hexdigest()[:32]
