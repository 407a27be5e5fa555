"""What has become of an SAE's training."""

from typing import NamedTuple


class Outcome(NamedTuple):
    """How the training of an SAE ended. Plain data: checkpoints, results and exports keep it as `state` and `reason`."""

    state: str
    """`finished`; `stopped`, when the run ended before it came to its planned length; or why the SAE ended before the run:
    `quarantined`, `retired` or `pruned`."""
    reason: str | None = None
    """What happened, and at which step; None for `finished`."""

    def __str__(self) -> str:
        """For people: `retired: no progress in 5 validations, at step 800`."""
        return self.state if self.reason is None else f"{self.state}: {self.reason}"
