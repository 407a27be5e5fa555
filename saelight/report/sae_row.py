"""An SAE as the report knows it, whichever folder it comes from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saelight.run.wanted_l0 import wanted_l0


@dataclass
class SAERow:
    """What is known of one SAE, and the run folder that it is from."""

    names: list[str]
    """Its own, then those of the sweep's points that are the same SAE."""
    state: str
    reason: str | None
    config: dict[str, Any]
    """`{class_path, init_args}`."""
    metrics: dict[str, float | None]
    run: Path
    group: str | None = None
    """Of a sweep: the SAEs that share a run."""
    seed: int | None = None
    d_sae: int | None = None
    batch_size: Any = None
    """Tokens."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of a sweep: what it sets, by dotted key."""
    loss: float | None = None
    steps: int | None = None
    of_steps: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    device: str | None = None
    eta: float | None = None
    """Seconds that its run still takes, where it trains now."""
    density: dict[str, Any] | None = None
    """How many latents fire how often, as a run's results have it."""

    @property
    def name(self) -> str:
        """Its name in its run."""
        return self.names[0]

    @property
    def variant(self) -> str:
        """The SAE's class, without its module."""
        return str(self.config.get("class_path") or "unknown").rpartition(".")[2]

    @property
    def target_l0(self) -> float | None:
        """The L0 that its config asks for, where that is a number."""
        try:
            return wanted_l0(self.config)
        except (TypeError, ValueError):
            return None

    @property
    def fields(self) -> dict[str, Any]:
        """Its config's fields."""
        return self.config.get("init_args") or {}

    def setting(self, key: str) -> Any:
        """The value of a dotted setting: the sweep's, or the SAE's own default; None where it has none."""
        if key in self.settings:
            return self.settings[key]
        return self.fields.get(key.removeprefix("sae.")) if key.startswith("sae.") else None

    def inside(self, folder: str) -> Path | None:
        """Its own folder in a folder of the run; None where its name, which a damaged file may give it, is no folder's."""
        fits = self.name not in ("", ".", "..") and not set(self.name) & {"/", "\\", "\0"}
        return self.run / folder / self.name if fits else None
