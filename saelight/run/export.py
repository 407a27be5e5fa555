"""The published form of a trained SAE: a folder with `config.json` and `sae.safetensors` (docs/saes.md)."""

import functools
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from saelight.errors import UserError
from saelight.files import replacing
from saelight.ops.dispatch import code_for
from saelight.ops.matmul import kernel
from saelight.run import run_folder
from saelight.saes import SAE
from saelight.saes.plain_data import from_spec

if TYPE_CHECKING:
    import lightning as L

FORMAT = "saelight-sae"
VERSION = 1


def folder_for(trainer: "L.Trainer", name: str) -> Path:
    """Where a trainer's run keeps the SAE called `name`."""
    return run_folder.of(trainer) / "saes" / name


def write(
    sae: SAE,
    folder: Path,
    *,
    name: str,
    seed: int,
    normalisation: dict[str, Any],
    source: dict[str, Any],
    training: dict[str, Any],
    target_normalisation: dict[str, Any] | None = None,
    target_source: dict[str, Any] | None = None,
) -> None:
    """Write `sae` to `folder`, whole or not at all; one that is there is replaced."""
    config = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        **sae.config.spec(),
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "seed": seed,
        "d_out": sae.d_out if sae.is_transcoder else None,
        "normalisation": normalisation,
        "target_normalisation": target_normalisation,
        "source": source,
        "target_source": target_source,
        "training": training,
        "versions": _versions(),
        "commit": _commit(),
        "kernels": {"matmul": kernel(), "loops": code_for(sae.W_dec)},
    }
    with replacing(folder) as partial:
        partial.mkdir()
        save_file(_published(sae), partial / "sae.safetensors")
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load(folder: str | Path, fold_normalisation: bool = True) -> SAE:
    """A trained SAE from its folder: a plain module with `encode`, `decode` and `forward`, on the CPU, in eval mode.

    No code is imported because of what the folder says: import a variant of your own before you load an SAE of it.

    Args:
        folder: The SAE's folder, e.g. `runs/quickstart/saes/topk-4`.
        fold_normalisation: Fold the training data's scale into the weights, so that the SAE takes and gives the model's
            own activations (a transcoder's targets likewise). False keeps the trained weights as they are; they expect
            E‖x‖² = d_in.

    Raises:
        UserError: when the folder holds no SAE, one of a newer saelight or of a variant that is not imported, or weights
            that do not fit their config.
    """
    folder = Path(folder)
    for file in ("config.json", "sae.safetensors"):
        if not (folder / file).is_file():
            raise UserError(f"{folder} holds no trained SAE: {file} is missing")
    try:
        config = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "sae.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder} cannot be read: {error}") from None
    if config.get("format") != FORMAT:
        raise UserError(f"{folder}/config.json is not a {FORMAT} config")
    if config["version"] > VERSION:
        raise UserError(f"{folder} is of a newer saelight (format {config['version']}, this one reads {VERSION}): upgrade")
    try:
        sae_config = from_spec({key: config.get(key) for key in ("class_path", "init_args")})
    except UserError as error:
        raise UserError(f"{folder}/config.json does not describe an SAE: {error}") from None
    sae = sae_config.build(config["d_in"], config["seed"], config["d_out"])
    expected = {name: tensor.shape for name, tensor in _published(sae).items()}
    found = {name: tensor.shape for name, tensor in weights.items()}
    if expected != found:
        raise UserError(f"{folder}: sae.safetensors does not fit config.json: expected {expected}, found {found}")
    sae.load_state_dict(weights, strict=False)
    if fold_normalisation:
        target = config["target_normalisation"]
        sae.fold_scale(config["normalisation"]["scale"], target and target["scale"])
    return sae.eval().requires_grad_(False)


def _published(sae: SAE) -> dict[str, torch.Tensor]:
    """The tensors that inference needs."""
    return {name: t.detach().cpu().contiguous() for name, t in sae.state_dict().items() if name not in sae.training_state}


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in ("saelight", "torch", "lightning")}
    return {"python": platform.python_version(), **packages}


@functools.cache
def _commit() -> str | None:
    """The commit of the user's working folder, where there is one: which code made this SAE."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
