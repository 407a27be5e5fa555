"""The published form of a trained SAE: a folder with `config.json` and `sae.safetensors` (docs/saes.md)."""

import functools
import importlib.metadata
import json
import platform
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from saelight.files import replacing, write_text
from saelight.ops.dispatch import code_for
from saelight.ops.matmul import kernel
from saelight.ops.normalisation import Normalisation
from saelight.run import run_folder
from saelight.saes import SAE
from saelight.saes.sae_folder import (
    CONFIG,
    MEANS,
    WEIGHTS,
    Description,
    Units,
    config_digest,
    file_digest,
    published,
)
from saelight.version import version

if TYPE_CHECKING:
    import lightning as L


def folder_for(trainer: "L.Trainer", name: str) -> Path:
    """Where a trainer's run keeps the SAE called `name`."""
    return run_folder.of(trainer) / "saes" / name


def write(
    sae: SAE,
    folder: Path,
    *,
    name: str,
    seed: int,
    normalisation: Normalisation,
    source: dict[str, Any],
    training: dict[str, Any],
    target_normalisation: Normalisation | None = None,
    target_source: dict[str, Any] | None = None,
    versions: dict[str, Any] | None = None,
    commit: str | None = None,
) -> None:
    """Write `sae` to `folder`, whole or not at all; one that is there is replaced.

    Args:
        versions: What it was trained with, and `commit` in which folder's. Default: with what is here.
    """
    described = Description(
        name=name,
        **sae.config.spec(),
        d_in=sae.d_in,
        d_sae=sae.d_sae,
        seed=seed,
        d_out=sae.d_out if sae.is_transcoder else None,
        normalisation=_units(normalisation),
        target_normalisation=None if target_normalisation is None else _units(target_normalisation),
        source=source,
        target_source=target_source,
        training=training,
        versions=versions or _versions(),
        commit=commit if versions else _commit(),
        kernels={"matmul": kernel(), "loops": code_for(sae.W_dec)},
    )
    # As a reader will see it: what is hashed has no tuples and no keys but text.
    config = json.loads(json.dumps(asdict(described)))
    tensors = {name: _as_published(tensor) for name, tensor in published(sae).items()}
    for name, units in zip(MEANS.values(), (normalisation, target_normalisation), strict=True):
        if units is not None and units.mean_D is not None:
            tensors[name] = units.mean_D
    with replacing(folder) as partial:
        partial.mkdir()
        save_file(tensors, partial / WEIGHTS)
        config["sha256"] = {CONFIG: config_digest(config), WEIGHTS: file_digest(partial / WEIGHTS)}
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def note_metrics(folder: Path, metrics: dict[str, float | None]) -> None:
    """Put an SAE's last metrics beside its weights, under `training`: they are measured once these are written."""
    config = json.loads((folder / CONFIG).read_text())
    config["training"]["metrics"] = metrics
    config["sha256"][CONFIG] = config_digest(config)
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def _units(normalisation: Normalisation) -> Units:
    return Units(kind=normalisation.kind, scale=normalisation.scale)


def _as_published(tensor: Tensor) -> Tensor:
    # Training in float64 (trainer.precision 64-true) gives an SAE like any other.
    tensor = tensor.detach().cpu().contiguous()
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in ("torch", "lightning")}
    return {"python": platform.python_version(), "saelight": version(), **packages}


@functools.cache
def _commit() -> str | None:
    """The commit of the user's working folder, where there is one: which code made this SAE."""
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
