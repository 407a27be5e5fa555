"""What the latents of an SAE fire on: `saelight.latents.read("runs/quickstart/saes/topk-4")[123]`.

Names load on first use.
"""

from typing import Any

__all__ = ["read"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from saelight.latents import latents_reading

        return getattr(latents_reading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
