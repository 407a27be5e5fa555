"""Memory that training needs, predicted: what decides how many SAEs share a run (docs/sweeps.md has the measurements)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saelight.saes import SAEConfig

_FLOAT = 4


def sae_bytes(config: "SAEConfig", parameters: int, d_sae: int, d_in: int, batch: int) -> tuple[int, int]:
    """Bytes one SAE holds all the time, and what it needs beside them in its turn, which the group needs only once."""
    # Weights, their gradients, and AdamW's two moments.
    held = 4 * _FLOAT * parameters
    in_turn = _FLOAT * parameters + 5 * _FLOAT * batch * d_sae
    return held, in_turn


def group_bytes(members: list[tuple[int, int]]) -> int:
    """Bytes of a group above what the process needs to be there at all."""
    return sum(held for held, _ in members) + max((in_turn for _, in_turn in members), default=0)
