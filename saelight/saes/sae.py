"""The contract of every SAE: a module that encodes, decodes and knows its own training objective.

Shapes: B batch, D d_in (d_out where it concerns the target), F d_sae, N sample rows.

A variant is one file: an `SAEConfig`, and an `SAE` with `encode` and `losses` that is bound to it. It knows nothing of
Lightning, of its siblings, or of where activations come from. These arrive normalised (docs/data.md): mean 0, E‖x‖² = D.

An autoencoder reconstructs x. Built with `d_out` it is a transcoder: it predicts a target y (B, d_out), its encoder does
not subtract b_dec (which lives in y's space), and it may have a linear `skip` path.
"""

import math
from abc import ABC, abstractmethod, update_abstractmethods
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from saelight.errors import UserError
from saelight.ops.entries import AllEntries, KeptEntries
from saelight.ops.error import mean_square
from saelight.ops.init import blend, centre, fit_scale, unit_rows
from saelight.ops.matmul import centred_product, product, row_dots
from saelight.ops.select import Select, scan
from saelight.ops.sparse import sparse_encode
from saelight.saes.common_fields import CommonFields
from saelight.saes.folding import Foldable
from saelight.saes.losses import Entries, Losses, Moment, Reconstruction
from saelight.saes.memory_factors import DENSE, MemoryFactors
from saelight.saes.provenance import HasProvenance
from saelight.schedules import Horizon, in_steps

_CALIBRATION_ROWS = 1024
_UNTIED_SIZE = 0.1  # of the target's norm; at 1, training takes several times as long to the same FVU


@dataclass(kw_only=True)
class SAEConfig(CommonFields, ABC):
    """The settings of one SAE of one variant, which `build` makes."""

    nests: ClassVar[bool] = False
    """Whether the variant can be the base of Matryoshka: then its losses take their term from `reconstruction`."""

    @property
    @abstractmethod
    def module(self) -> type["SAE"]:
        """The class that is built, which binds itself: `class TopKSAE(SAE, config=TopK)`."""

    def build(self, d_in: int, seed: int = 0, d_out: int | None = None) -> "SAE":
        """The module, freshly initialised from `seed` (or from this config's own); a transcoder when `d_out` is given.

        Raises:
            UserError: for settings that make no sense, or that do not fit these widths.
        """
        self.check()
        return self.module(self, d_in, seed, d_out)


class SAE(HasProvenance, Foldable, ABC):
    """A sparse autoencoder x (B, D) → f (B, F) → x̂ (B, D), or a transcoder x → f → ŷ.

    `W_enc` (d_in, F), `W_dec` (F, d_out), `b_dec` (d_out,) and with `skip` `W_skip` (d_in, d_out) are common to all; the
    rest is the variant's.
    """

    memory: ClassVar[MemoryFactors] = DENSE
    """What training it holds beside its weights: decides how many share a run of a sweep."""
    sparse_below: ClassVar[float] = 0.08
    """The share of latents kept below which sparse execution pays on a CPU (docs/performance.md)."""
    calibrated: ClassVar[bool] = False
    """Scale W_enc on the initial sample: for variants whose latents are about half active at the start."""
    starting_norm: float = 1.0
    """Of encoder columns and decoder rows; other than 1 only where no constraint keeps it."""
    signed: ClassVar[bool] = False
    """Latents keep the sign of their pre-activation: two opposite concepts each."""
    decodes_once: ClassVar[bool] = True
    """The reconstruction term is that of f @ W_dec (`reconstruction_of`)."""
    transcodes: ClassVar[bool] = True
    """Whether the variant can be a transcoder."""
    training_state: ClassVar[tuple[str, ...]] = ("tokens_since_fired", "initialised", "dead_after")
    """Buffers that only training needs: in checkpoints, not in exports."""

    b_enc: nn.Parameter
    """Of the variants that have one."""
    tokens_since_fired: Tensor
    dead_after: Tensor
    initialised: Tensor

    def __init_subclass__(cls, config: type[SAEConfig] | None = None, **kwargs: Any) -> None:
        """`class TopKSAE(SAE, config=TopK)`: what `TopK.build` makes."""
        super().__init_subclass__(**kwargs)
        if config is not None:
            # It takes the place of an abstract property, which makes the config a class that has instances.
            setattr(config, "module", cls)  # noqa: B010 (types know it as a property, which is not assigned to)
            update_abstractmethods(config)

    def __init__(self, config: SAEConfig, d_in: int, seed: int = 0, d_out: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.seed = seed if config.seed is None else config.seed
        self.d_in = d_in
        self.d_out = d_in if d_out is None else d_out
        self.is_transcoder = d_out is not None
        self.d_sae = d_sae = config.width(d_in)
        if self.is_transcoder and not self.transcodes:
            raise UserError(f"{type(config).__name__} cannot be a transcoder: leave it out, or drop data.target_path")
        if config.skip and not self.is_transcoder:
            raise UserError("skip is for transcoders, which need a target: set data.target_path, or drop skip")
        if config.decoder_scale != 1 and self.unit_decoder:
            raise UserError("decoder_scale: this SAE's decoder rows are kept at norm 1; drop it, or set encoder_scale")
        generator = torch.Generator().manual_seed(self.seed)
        W_dec_FD = unit_rows(d_sae, self.d_out, generator)
        self.tied_start = config.tied_init and not self.is_transcoder
        W_enc_FD = W_dec_FD if self.tied_start else unit_rows(d_sae, d_in, generator)
        # (d_in, F) with the memory of (F, d_in): a latent's weights lie together, as the sparse sums write their gradients.
        self.W_enc = nn.Parameter(W_enc_FD.clone().T)
        self.W_dec = nn.Parameter(W_dec_FD)
        self.b_dec = nn.Parameter(torch.zeros(self.d_out))
        self.W_skip = nn.Parameter(torch.zeros(d_in, self.d_out)) if config.skip else None
        self.register_buffer("tokens_since_fired", torch.zeros(d_sae, dtype=torch.int64))
        self.register_buffer("dead_after", torch.tensor(config.dead_after or 10_000_000))
        self.register_buffer("initialised", torch.tensor(False))

    @property
    def unit_decoder(self) -> bool:
        """Rows of W_dec keep norm 1 (`unit` in docs/training.md); False leaves them free."""
        return True

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Activations (..., d_in) → latents (..., F), as at inference."""

    def decode(self, f: Tensor) -> Tensor:
        """Latents (..., F) → activations (..., d_out), the skip path left out."""
        return product(f.reshape(-1, self.d_sae), self.W_dec).view(*f.shape[:-1], self.d_out) + self.b_dec

    def reconstruct(self, f: Tensor, x: Tensor) -> Tensor:
        """The reconstruction (..., d_out) from latents (..., F) and, with a skip path, from x (..., d_in) itself."""
        return self.decode(f) if self.W_skip is None else self.decode(f) + x @ self.W_skip

    def forward(self, x: Tensor) -> Tensor:
        """x̂ (or ŷ) (..., d_out) of x (..., d_in), as at inference."""
        return self.reconstruct(self.encode(x), x)

    @abstractmethod
    def losses(self, x_BD: Tensor, y_BD: Tensor, moment: Moment) -> Losses:
        """The training objective on one batch: from x, reconstruct y, which is x itself for an autoencoder."""

    def reconstruction(self, f: Tensor, entries: Entries, x_BD: Tensor, y_BD: Tensor, moment: Moment) -> Reconstruction:
        """The reconstruction term, of latents f at `entries`."""
        return self.reconstruction_of(entries.decode(f, self.W_dec), x_BD, y_BD)

    def reconstruction_of(self, decoded_BD: Tensor, x_BD: Tensor, y_BD: Tensor) -> Reconstruction:
        """The reconstruction term, of f @ W_dec."""
        y_hat_BD = decoded_BD + self.b_dec
        if self.W_skip is not None:
            y_hat_BD = y_hat_BD + x_BD @ self.W_skip
        error_BD, loss = mean_square(y_BD, y_hat_BD.to(y_BD.dtype))
        return Reconstruction(error_BD, loss, loss.detach())

    def absorb(self, measured: Tensor, moment: Moment) -> None:
        """After a step: take the average `Losses.measured` of its batches into the running state."""

    def note_steps(self, done: int, horizon: Horizon) -> None:
        """At the start of training, and when `done` steps are complete: what is to be done from time to time."""

    def resample_due(self, moment: Moment) -> bool:
        """Whether `resample` is to be called after this step."""
        return False

    def resample(self, x_ND: Tensor, y_ND: Tensor, moment: Moment) -> Tensor:
        """Start dead latents anew from a sample (N, d_in) and its targets (N, d_out); the latents' numbers (R,)."""
        raise NotImplementedError(f"{type(self).__name__} wants to resample, and has no method for it")

    def concerns(self, horizon: Horizon) -> list[str]:
        """What the user should know about these settings in a training of this length."""
        warmup = in_steps(self.config.schedule.warmup, horizon)
        if warmup < horizon.steps or horizon.steps == 1:
            return []
        return [f"schedule.warmup takes {warmup} steps, training has {horizon.steps}: lr is never reached; shorten it"]

    def peak_lr(self, horizon: Horizon) -> float:
        """Peak learning rate of a training of this length."""
        return self.config.default_lr(self.d_out, horizon) if self.config.lr is None else self.config.lr

    @property
    def encoder_bias(self) -> Tensor | None:
        """What is added to a latent's z before it is judged whether it fires, (F,); None where nothing is."""
        return getattr(self, "b_enc", None)

    def pre_activations(self, x: Tensor, bias_F: Tensor | None = None, *, rectified: bool = False) -> Tensor:
        """z = (x - b_dec) @ W_enc (+ bias), (..., F), of a transcoder x @ W_enc: what gates and magnitudes start from.
        `rectified`: its ReLU."""
        return centred_product(x, None if self.is_transcoder else self.b_dec, self.W_enc, bias_F, rectified=rectified)

    def kept_pre_activations(
        self,
        select: Select,
        x_BD: Tensor,
        bias_F: Tensor | None,
        *,
        sparsely: bool,
        trim: Callable[[Tensor, KeptEntries], Tensor | None] | None = None,
        weights_F: Tensor | None = None,
    ) -> tuple[Tensor, Entries]:
        """The pre-activations that a training step needs: if `sparsely` those that `select` keeps, else all.

        Args:
            trim: Which of those kept are to stay after all: their values (their sizes, if `signed`) to places, or None.
            weights_F: Positive factors on the pre-activations that `select` and `trim` are to see.
        """
        if not sparsely:
            return self.pre_activations(x_BD, bias_F), AllEntries()
        centre_D = None if self.is_transcoder else self.b_dec
        W_DF, seen_F = self.W_enc.detach(), bias_F
        if weights_F is not None:
            W_DF, seen_F = W_DF * weights_F, None if bias_F is None else bias_F.detach() * weights_F
        pre_E, entries = scan(x_BD, centre_D, W_DF, seen_F, select, self.signed)
        if trim is not None:
            places = trim(pre_E.abs() if self.signed else pre_E, entries)
            if places is not None:
                pre_E, entries = pre_E.index_select(0, places), entries.take(places)
        if weights_F is not None:
            pre_E = pre_E / entries.at(weights_F)
        return sparse_encode(x_BD, centre_D, self.W_enc, bias_F, pre_E, entries), entries

    def dead(self) -> Tensor:
        """Latents that have not fired for `dead_after` tokens of training: bool (F,)."""
        return self.tokens_since_fired >= self.dead_after

    def learning_rates(self, horizon: Horizon) -> dict[str, float]:
        """Peak learning rates of the parameters that have one of their own, by name."""
        return {}

    def decayed_parameters(self) -> list[nn.Parameter]:
        """The parameters weight decay acts on."""
        return [self.W_enc] if self.unit_decoder else [self.W_enc, self.W_dec]

    @torch.no_grad()
    def initialise(self, x_ND: Tensor, y_ND: Tensor | None = None) -> None:
        """The part of the start that depends on data: b_dec, data points as directions, the scales.

        Args:
            x_ND: A sample of training activations (N, d_in).
            y_ND: Their targets (N, d_out), for a transcoder.
        """
        y_ND = x_ND if y_ND is None else y_ND
        self.b_dec.copy_(centre(y_ND, self.config.b_dec_init))
        if self.config.datapoint_init > 0:
            self._start_from(x_ND, y_ND)
        if self.starting_norm != 1:
            self.W_enc.mul_(self.starting_norm)
            self.W_dec.mul_(self.starting_norm)
        if self.calibrated or self.is_transcoder:
            self._calibrate(x_ND[:_CALIBRATION_ROWS], y_ND[:_CALIBRATION_ROWS])
        if self.W_enc is not None:
            self.W_enc.mul_(self.config.encoder_scale)
        if not self.unit_decoder:
            self.W_dec.mul_(self.config.decoder_scale)
        self.initialised.fill_(True)

    def _start_from(self, x_ND: Tensor, y_ND: Tensor) -> None:
        """Turn the starting directions towards centred samples, the same sample for a latent's two directions."""
        generator = torch.Generator().manual_seed(self.seed)
        rows_F = torch.cat([torch.randperm(len(x_ND), generator=generator) for _ in range(-(-self.d_sae // len(x_ND)))])
        rows_F, share = rows_F[: self.d_sae].to(x_ND.device), self.config.datapoint_init
        self.W_dec.copy_(blend(self.W_dec, y_ND[rows_F] - self.b_dec, share))
        if self.W_enc is not None:
            centred_FD = x_ND[rows_F] - x_ND.mean(0)
            self.W_enc.copy_(self.W_dec.T if self.tied_start else blend(self.W_enc.T, centred_FD, share).T)

    def stretch(self, factor: float) -> None:
        """Multiply the size of the starting latents."""
        self.W_enc.mul_(factor)

    def _calibrate(self, x_ND: Tensor, y_ND: Tensor) -> None:
        """Stretch the latents so that x̂ fits the sample: unit rows with half of the latents active overshoot by far."""
        target_ND, stretched = y_ND - self.b_dec, 0.0

        def misfit(log_scale: float) -> float:
            nonlocal stretched
            self.stretch(math.exp(log_scale - stretched))
            stretched = log_scale
            y_hat_ND = self.forward(x_ND) - self.b_dec
            # An untied start is uncorrelated with its target, and would fit it best by vanishing: start small.
            fit = (target_ND * y_hat_ND).sum() if self.tied_start else _UNTIED_SIZE * target_ND.norm() * y_hat_ND.norm()
            size = y_hat_ND.square().sum()
            # Too small a scale may leave nothing at all above a threshold.
            return float((fit / size).clamp_min(1e-12).log()) if size > 0 else 30.0

        self.stretch(math.exp(fit_scale(misfit) - stretched))

    @torch.no_grad()
    def constrain_gradients(self) -> None:
        """Before clipping and the step: drop the part of W_dec's gradient along its rows, which the constraint undoes."""
        if self.unit_decoder and self.W_dec.grad is not None:
            self.W_dec.grad.addcmul_(self.W_dec, row_dots(self.W_dec.grad, self.W_dec)[:, None], value=-1)

    @torch.no_grad()
    def constrain_weights(self) -> None:
        """After the step: decoder rows back to norm 1."""
        if self.unit_decoder:
            self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12))
