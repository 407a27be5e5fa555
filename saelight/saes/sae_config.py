"""The fields that every variant has, and those that every penalised one has."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from saelight.errors import UserError
from saelight.ops.init import Centre
from saelight.schedules import Schedule, Time, check_time

if TYPE_CHECKING:
    from saelight.saes.sae import SAE


@dataclass(kw_only=True)
class SAEConfig(ABC):
    """One SAE: its width, how it is initialised, and how it is trained."""

    expansion: float | None = None
    """Width as a multiple of d_in. Default: 8, unless d_sae is given."""
    d_sae: int | None = None
    """Width in latents, in place of expansion."""
    lr: float | None = None
    """Peak learning rate. Default: the variant's own (docs/training.md has a rule for short runs)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's moment decays."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay, on W_enc and on a W_dec without constraint; never on biases, thresholds, gates."""
    clip: float | None = 1.0
    """Largest L2 norm of this SAE's whole gradient; null for no clipping."""
    schedule: Schedule = field(default_factory=Schedule)
    """How the learning rate moves over training."""
    seed: int | None = None
    """Seed of the initial weights and of any noise. Default: derived from the run's seed and this SAE's name."""
    b_dec_init: Centre = "geometric_median"
    """Where b_dec starts: the geometric median or mean of a sample of the training data, or zero."""
    tied_init: bool = True
    """Start W_enc as W_dec transposed; false: as random unit columns of its own. Transcoders always start untied."""
    datapoint_init: float = 0.0
    """Share of the training data in the starting directions, in [0, 1]: 0 random rows, 1 centred samples themselves."""
    encoder_scale: float = 1.0
    """Factor on the starting W_enc, after the scale that fits the initial sample (TopK kinds start from unit columns)."""
    decoder_scale: float = 1.0
    """The same for W_dec. Only for decoders without constraint; the others keep norm 1."""
    skip: bool = False
    """Transcoders: add x @ W_skip, a linear path past the latents that starts at zero (arXiv 2501.18823)."""
    dead_after: int | None = None
    """Tokens without firing after which a latent counts as dead. Default: 10M, at most 10 % of training."""

    def check(self) -> None:
        """Raise `UserError` for values that make no sense; called when the SAE is built, which can name it."""
        self.schedule.check()
        if self.expansion is not None and self.d_sae is not None:
            raise UserError("expansion and d_sae exclude each other: give one of them")
        for name in ("expansion", "d_sae", "lr", "clip", "dead_after", "encoder_scale", "decoder_scale"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name} must be positive, got {value}")
        self.check_not_negative("weight_decay")
        if not 0 <= self.datapoint_init <= 1:
            raise UserError(f"datapoint_init must be in [0, 1], got {self.datapoint_init}")

    def check_not_negative(self, *names: str) -> None:
        """Raise `UserError` for a field below 0."""
        for name in names:
            if getattr(self, name) < 0:
                raise UserError(f"{name} must not be negative, got {getattr(self, name)}")

    def width(self, d_in: int) -> int:
        """d_sae for activations of width `d_in`."""
        if self.d_sae is not None:
            return self.d_sae
        return max(1, round(d_in * (8 if self.expansion is None else self.expansion)))

    def default_lr(self, d_sae: int) -> float:
        """The peak learning rate when none is given."""
        return 3e-4

    @abstractmethod
    def build(self, d_in: int, seed: int = 0, d_out: int | None = None) -> "SAE":
        """The module, freshly initialised from `seed` (or from this config's own); a transcoder when `d_out` is given."""

    def spec(self) -> dict[str, Any]:
        """This config as plain data, `{class_path, init_args}`: what checkpoints and exports keep."""
        init_args = asdict(self) | {"betas": list(self.betas)}
        for f in fields(self):
            if isinstance(getattr(self, f.name), SAEConfig):
                init_args[f.name] = getattr(self, f.name).spec()
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": init_args}


@dataclass(kw_only=True)
class Penalised(SAEConfig):
    """An SAE whose sparsity comes from a penalty, of a given weight or aimed at a given L0."""

    default_sparsity: ClassVar[float] = 0.1
    """λ when neither `sparsity` nor `target_l0` is given: L0 comes out at 1 to 5 % of d_sae on a language model."""

    sparsity: float | None = None
    """The penalty's coefficient λ, in units that do not depend on d_in (docs/training.md). Default: the variant's own."""
    target_l0: float | None = None
    """The L0 to reach, in place of sparsity: λ is moved during training until the SAE fires that many latents per token."""
    sparsity_warmup: Time = 0.05
    """λ ramps linearly from 0 over this time, so that latents are of use before they are penalised."""

    def check(self) -> None:
        super().check()
        if self.sparsity is not None:
            self.check_not_negative("sparsity")
        if self.target_l0 is not None and not self.target_l0 > 0:
            raise UserError(f"target_l0 must be positive, got {self.target_l0}")
        self.check_target()
        check_time(self.sparsity_warmup, "sparsity_warmup")

    def check_target(self) -> None:
        """Raise `UserError` for a target that goes with a weight."""
        if self.sparsity is not None and self.target_l0 is not None:
            raise UserError("sparsity and target_l0 exclude each other: give one of them")
