"""One SAE to train, and what came of it."""

from dataclasses import dataclass

OURS = "saelight"


@dataclass(frozen=True)
class Run:
    """One SAE and the rows that it learns from."""

    data: str
    rows: str
    """Identity of the rows, training and held out."""
    library: str
    variant: str
    d_sae: int
    tokens: int
    batch: int
    l0: int
    """The target."""
    lr: float | None
    """None: the library's own choice."""
    coefficient: float | None
    """The penalty's weight, where it is tuned to reach the target."""
    seed: int


@dataclass(frozen=True)
class Measured:
    """An SAE on held-out rows."""

    fvu: float
    l0: float


@dataclass(frozen=True)
class Result:
    """What came of a run."""

    run: Run
    held_out: Measured
    out_of_distribution: Measured
    never_fired: float
    """Share of the latents, over the rows held out."""
    seconds: float
    """Processor time of the training that made it, divided by the SAEs that shared it: other work beside it does not change
    it, and on one thread it is the wall time of a machine of its own."""
    together: int
    """SAEs that shared the training."""
