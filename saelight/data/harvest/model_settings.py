"""Which model is to run."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(eq=False)
class ModelSettings:
    """Which model runs, and how."""

    model: str
    """Name or folder of the model, for AutoModel.from_pretrained. `{package:NAME}` is the folder of an installed package."""
    model_dtype: Literal["float32", "bfloat16", "float16"] = field(default="float32", kw_only=True)
    """What the model computes in."""
    device: str = field(default="auto", kw_only=True)
    """auto (the first GPU, or else the CPU), or a torch device."""
