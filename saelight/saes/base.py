"""The contract of every SAE: one config dataclass and one module per variant, in one file.

Shapes: B batch, D d_in, F d_sae, N sample rows.

A variant subclasses `SAEConfig` (its fields) and `SAE` (its maths), and writes `encode` and `losses`. It knows nothing of
Lightning, of its siblings, or of where activations come from. Activations arrive normalised (docs/data.md), so that
E‖x‖² = D.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from saelight.errors import UserError
from saelight.ops.encode import centred_product
from saelight.ops.init import Centre, centre
from saelight.schedules import Horizon, Schedule, Time, check_time, in_steps, ramp


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
    dead_after: int | None = None
    """Tokens without firing after which a latent counts as dead. Default: 10M, at most 10 % of training."""

    def check(self) -> None:
        """Raise `UserError` for values that make no sense; called when the SAE is built, which can name it."""
        self.schedule.check()
        if self.expansion is not None and self.d_sae is not None:
            raise UserError("expansion and d_sae exclude each other: give one of them")
        for name in ("expansion", "d_sae", "lr", "clip", "dead_after"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name} must be positive, got {value}")
        if self.weight_decay < 0:
            raise UserError(f"weight_decay must not be negative, got {self.weight_decay}")

    def width(self, d_in: int) -> int:
        """d_sae for activations of width `d_in`."""
        if self.d_sae is not None:
            return self.d_sae
        return max(1, round(d_in * (8 if self.expansion is None else self.expansion)))

    def default_lr(self, d_sae: int) -> float:
        """The peak learning rate when none is given."""
        return 3e-4

    @abstractmethod
    def build(self, d_in: int, seed: int = 0) -> "SAE":
        """The module, freshly initialised from `seed` (or from this config's own)."""

    def spec(self) -> dict[str, Any]:
        """This config as plain data, `{class_path, init_args}`: what checkpoints and exports keep."""
        init_args = asdict(self)
        init_args["betas"] = list(self.betas)
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": init_args}


@dataclass(kw_only=True)
class Penalised(SAEConfig):
    """An SAE whose sparsity comes from a penalty."""

    sparsity: float = 0.1
    """The penalty's coefficient λ, in units that do not depend on d_in (docs/training.md)."""
    sparsity_warmup: Time = 0.05
    """λ ramps linearly from 0 over this time, so that latents are of use before they are penalised."""

    def check(self) -> None:
        super().check()
        if self.sparsity < 0:
            raise UserError(f"sparsity must not be negative, got {self.sparsity}")
        check_time(self.sparsity_warmup, "sparsity_warmup")

    def coefficient(self, d_in: int, moment: "Moment") -> float:
        """λ/√D at this moment: the factor on mean_B penalty."""
        warmup = in_steps(self.sparsity_warmup, moment.horizon)
        return self.sparsity * ramp(moment.step, warmup) / d_in**0.5


class Moment(NamedTuple):
    """Where training stands: all that a loss may depend on beside the batch."""

    step: int
    """Optimizer steps taken."""
    horizon: Horizon
    """The length of training."""


class Losses(NamedTuple):
    """What one training step of one SAE computes. Scalars are means over the batch, in float32."""

    total: Tensor
    """The objective: reconstruction + coefficient · penalty + α · aux."""
    reconstruction: Tensor
    """mean_B ‖x - x̂‖² / D."""
    penalty: Tensor | None
    """mean_B of the sparsity penalty, without its coefficient; None where the variant has none."""
    aux: Tensor | None
    """The auxiliary term, without its coefficient; None where the variant has none."""
    counts_F: Tensor
    """Tokens of the batch on which each latent fired, int64 (F,)."""


class SAE(nn.Module):
    """A sparse autoencoder: x (B, D) → f (B, F) → x̂ (B, D).

    `W_enc` (D, F), `W_dec` (F, D), `b_dec` (D,) and a tied start are common to all; the rest is the variant's.
    """

    unit_decoder: ClassVar[bool] = True
    """Rows of W_dec keep norm 1 (`unit` in docs/training.md); False leaves them free."""
    calibrated: ClassVar[bool] = False
    """Scale W_enc on the initial sample: for variants whose latents are about half active at the start."""
    training_state: ClassVar[tuple[str, ...]] = ("tokens_since_fired", "initialised", "dead_after")
    """Buffers that only training needs: in checkpoints, not in exports."""

    def __init__(self, config: SAEConfig, d_in: int, seed: int = 0) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.d_in = d_in
        self.d_sae = d_sae = config.width(d_in)
        generator = torch.Generator().manual_seed(seed if config.seed is None else config.seed)
        W_dec_FD = nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
        self.W_enc = nn.Parameter(W_dec_FD.T.contiguous())
        self.W_dec = nn.Parameter(W_dec_FD)
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_buffer("tokens_since_fired", torch.zeros(d_sae, dtype=torch.int64))
        self.register_buffer("dead_after", torch.tensor(config.dead_after or 10_000_000))
        self.register_buffer("initialised", torch.tensor(False))

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Activations (..., D) → latents (..., F), as at inference."""

    def decode(self, f: Tensor) -> Tensor:
        """Latents (..., F) → activations (..., D)."""
        return f @ self.W_dec + self.b_dec

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction x̂ (..., D) of x (..., D), as at inference."""
        return self.decode(self.encode(x))

    @abstractmethod
    def losses(self, x_BD: Tensor, moment: Moment) -> Losses:
        """The training objective on one batch."""

    @property
    def lr(self) -> float:
        """Peak learning rate."""
        return self.config.default_lr(self.d_sae) if self.config.lr is None else self.config.lr

    def pre_activations(self, x: Tensor) -> Tensor:
        """z = (x - b_dec) @ W_enc, (..., F): what every variant's gates and magnitudes start from."""
        return centred_product(x, self.b_dec, self.W_enc)

    def dead(self) -> Tensor:
        """Latents that have not fired for `dead_after` tokens of training: bool (F,)."""
        return self.tokens_since_fired >= self.dead_after

    def decayed_parameters(self) -> list[nn.Parameter]:
        """The parameters weight decay acts on."""
        return [self.W_enc] if self.unit_decoder else [self.W_enc, self.W_dec]

    @torch.no_grad()
    def initialise(self, sample_ND: Tensor) -> None:
        """The part of the start that depends on data: b_dec, and W_enc's scale where `calibrated`."""
        self.b_dec.copy_(centre(sample_ND, self.config.b_dec_init))
        if self.calibrated:
            # Tied unit rows with half of the latents active overshoot by far. Biases are zero, so the centred
            # reconstruction y is linear in W_enc's scale, and this factor is the one that fits the sample best.
            y_ND = self.forward(sample_ND) - self.b_dec
            self.W_enc.mul_(((sample_ND - self.b_dec) * y_ND).sum() / y_ND.square().sum().clamp_min(1e-12))
        self.initialised.fill_(True)

    @torch.no_grad()
    def constrain_gradients(self) -> None:
        """Before clipping and the step: drop the part of W_dec's gradient along its rows, which the constraint undoes."""
        if self.unit_decoder and self.W_dec.grad is not None:
            along_F1 = (self.W_dec.grad * self.W_dec).sum(1, keepdim=True)
            self.W_dec.grad.addcmul_(self.W_dec, along_F1, value=-1)

    @torch.no_grad()
    def constrain_weights(self) -> None:
        """After the step: decoder rows back to norm 1."""
        if self.unit_decoder:
            self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))

    @torch.no_grad()
    def fold_scale(self, scale: float) -> None:
        """Make this SAE, trained on `scale · x`, one that takes x and gives x̂ in x's own units; latents stay the same."""
        self.W_enc.mul_(scale)
        self.W_dec.div_(scale)
        self.b_dec.div_(scale)


def squared_error(x_BD: Tensor, x_hat_BD: Tensor) -> Tensor:
    """mean_B ‖x - x̂‖² / D, in float32 whatever x̂'s precision."""
    return (x_BD - x_hat_BD.to(x_BD.dtype)).square().mean()
