"""Memory that training needs, predicted: what decides how many SAEs share a run.

The terms are what training holds; the factors, each variant's own (`saelight/saes/memory_factors.py`), were fitted to the
peaks of 41 runs on a CPU (seven variants, d_in 256 to 768, d_sae 2048 to 8192, 2 to 8 SAEs, batches of 512 to 4096), which
they meet within 12 % (docs/sweeps.md). Those of a GPU are a row of their own: the live bytes of a step, counted without one,
and not measured yet.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from saelight.data.source import Description
    from saelight.saes import SAEConfig

_FLOAT = 4
_PROCESS = 200_000_000
"""What a run loads and keeps whatever its SAEs are: compiled code, logs, the libraries' buffers."""
_ON_GPU = 1_000_000_000
"""The same on a GPU: CUDA's context (some 500 MB), cuBLAS' workspace, what the allocator loses between tensors."""


class Needs(NamedTuple):
    """Bytes that the training of an SAE takes, above what its process needs once all is imported."""

    held: int
    """All the time."""
    in_turn: int
    """Beside them in its turn: a group needs it only once."""
    shared: int
    """By all SAEs of a run together."""


def moments(optimizer: str | None) -> int:
    """How many numbers the optimizer keeps for a weight: AdamW two, the default one, and a few more."""
    return 2 if optimizer == "adamw" else 1


def sae_bytes(config: "SAEConfig", parameters: int, d_sae: int, batch: int) -> tuple[int, int]:
    """Bytes one SAE holds all the time, and what it needs beside them in its turn, which a group needs only once."""
    factors = config.module.memory
    weights, latents = _FLOAT * parameters, _FLOAT * batch * d_sae
    # Weights, their gradients, and the moments.
    held = least_bytes(parameters, config.optimizer) + factors.latents_kept * latents
    return round(held), round(factors.parameters * weights + factors.latents * latents)


def gpu_bytes(config: "SAEConfig", parameters: int, d_sae: int, batch: int, precision: str) -> tuple[int, int]:
    """The same of a GPU's memory, which holds nothing beside weights, gradients and moments between an SAE's turns."""
    factors = config.module.memory.gpu
    latents = (factors.mixed if precision == "bf16-mixed" else factors.full) * batch * d_sae
    return least_bytes(parameters, config.optimizer), round(latents + factors.parameters * _FLOAT * parameters)


def needs(
    config: "SAEConfig", parameters: int, d_sae: int, data: "Description | None", precision: str = "32-true"
) -> dict[str, Needs]:
    """What an SAE takes by kind of device, `cpu` and `gpu`; without data, as if it were next to none."""
    batch = data.batch_size if data else 1
    on_cpu, on_gpu = sae_bytes(config, parameters, d_sae, batch), gpu_bytes(config, parameters, d_sae, batch, precision)
    return {
        "cpu": Needs(*on_cpu, _PROCESS + (data.stream_bytes if data else 0)),
        "gpu": Needs(*on_gpu, _ON_GPU + (data.gpu_bytes if data else 0)),
    }


def least_bytes(parameters: int, optimizer: str | None) -> int:
    """Bytes that no device trains an SAE without: its weights, their gradients, and the moments."""
    return _FLOAT * parameters * (2 + moments(optimizer))


def size(n: float) -> str:
    """Bytes as a person reads them: `12.3 GB`."""
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def group_bytes(members: Sequence[Mapping[str, Needs]], kind: str) -> int:
    """Bytes of a group's run on one kind of device.

    Args:
        members: What `needs` says of each SAE.
    """
    of = [member[kind] for member in members]
    return sum(one.held for one in of) + max(one.in_turn for one in of) + max(one.shared for one in of)
