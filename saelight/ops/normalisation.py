"""The units that an SAE is trained in: x̃ = s (x - μ).

Shapes: B batch, D width of a row.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor

Kind = Literal["standard", "rms", "none"]


@dataclass(frozen=True, eq=False)
class Normalisation:
    """x̃ = scale · (x - mean), the same for every row."""

    kind: Kind = "none"
    """standard: mean and scale make E x̃ = 0 and E‖x̃‖² = D. rms: the scale alone makes E‖x̃‖² = D. none: x̃ = x."""
    scale: float = 1.0
    mean_D: Tensor | None = None
    """(D,) float64 on the CPU; None: 0."""
    _shifts: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False)
    """-scale · mean as float32, by the device it was asked for on."""

    def __call__(self, x_BD: Tensor) -> Tensor:
        """Rows (B, D) of any dtype in these units: float32, contiguous."""
        # bfloat16 would round a row to the size of its mean, float32 keeps what is stored.
        x_BD = x_BD.float()
        if self.mean_D is None:
            return x_BD.contiguous() if self.scale == 1 else x_BD * self.scale
        if x_BD.device not in self._shifts:
            self._shifts[x_BD.device] = (-self.scale * self.mean_D).to(x_BD)
        return torch.add(self._shifts[x_BD.device], x_BD, alpha=self.scale)

    def undone(self, x_BD: Tensor) -> Tensor:
        """Rows (B, D) of these units as they were before: float32."""
        x_BD = x_BD.float() / self.scale if self.scale != 1 else x_BD.float()
        return x_BD if self.mean_D is None else x_BD + self.mean_D.to(x_BD)

    def relative_to(self, other: "Normalisation") -> "Normalisation":
        """What takes rows in `other`'s units to this one's."""
        mean_D = self.mean_D
        if other.mean_D is not None:
            mean_D = -other.mean_D if mean_D is None else mean_D - other.mean_D
        return Normalisation(self.kind, self.scale / other.scale, None if mean_D is None else other.scale * mean_D)

    def plain(self) -> dict[str, Any]:
        """As numbers, text and a tensor: what checkpoints hold."""
        return {"kind": self.kind, "scale": self.scale, "mean": self.mean_D}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """The inverse of `plain`."""
        return cls(plain["kind"], plain["scale"], plain["mean"])
