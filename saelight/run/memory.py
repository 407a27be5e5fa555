"""Memory that training needs, predicted: what decides how many SAEs share a run.

The terms are what training holds; the factors, each variant's own (`saelight/saes/memory_factors.py`), were fitted to the
peaks of 41 runs on a CPU (seven variants, d_in 256 to 768, d_sae 2048 to 8192, 2 to 8 SAEs, batches of 512 to 4096), which
they meet within 12 % (docs/sweeps.md). A GPU needs less beside the weights: there the prediction is on the safe side, and
not measured.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saelight.saes import SAEConfig

_FLOAT = 4
_PROCESS = 200_000_000
"""What a run loads and keeps whatever its SAEs are: compiled code, logs, the libraries' buffers."""


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


def group_bytes(members: list[tuple[int, int]], stream_bytes: int) -> int:
    """Bytes of a group's run above what the process needs once all is imported.

    Args:
        members: What `sae_bytes` says of each SAE.
        stream_bytes: What the data's stream holds.
    """
    saes = sum(held for held, _ in members) + max((in_turn for _, in_turn in members), default=0)
    return saes + _PROCESS + stream_bytes
