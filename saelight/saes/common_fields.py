"""The fields that every variant has."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, ClassVar, Literal

from saelight.errors import UserError
from saelight.ops.init import Centre
from saelight.ranges import LONGEST, SEED, Range, check_fields, short
from saelight.schedules import Horizon, Schedule

_LR, _LR_POWER = 0.057, 3 / 8  # fitted on a language model's activations (docs/quality.md)
_OF_A_NEW_START = frozenset({"b_dec_init", "tied_init", "datapoint_init", "encoder_scale", "decoder_scale"})


@dataclass(kw_only=True)
class CommonFields:
    """One SAE: its width, how it is initialised, and how it is trained."""

    without_size: ClassVar[frozenset[str]] = frozenset(
        {"lr", "optimizer", "betas", "weight_decay", "clip", "schedule", "seed", "b_dec_init", "dead_after", "init_from"}
    )
    """The fields that change neither the width nor a parameter: a sweep need not build an SAE for each of their values."""

    lr_factor: ClassVar[float] = 1.0
    """The variant's own factor on the default learning rate."""

    expansion: Annotated[float | None, Range(above=0, most=65536)] = None
    """Width as a multiple of d_in. Default: 8, unless d_sae is given."""
    d_sae: Annotated[int | None, Range(least=1, most=2**27)] = None
    """Width in latents, in place of expansion."""
    lr: Annotated[float | None, Range(above=0, most=10)] = None
    """Peak learning rate. Default: from the length of training, the width of the data and the variant (docs/training.md)."""
    optimizer: Literal["latent_adamw", "adamw"] = "latent_adamw"
    """latent_adamw: AdamW with one second moment for each latent's weights, and steps of W_enc in which the activations'
    covariance is undone (docs/quality.md: what it brings). adamw: with one for each entry."""
    betas: Annotated[tuple[float, float] | None, Range(least=0, below=1)] = None
    """The moments' decays. Default: 0.8 and 0.98 for latent_adamw; 0.9 and 0.999 for adamw."""
    weight_decay: Annotated[float, Range(least=0, most=100)] = 0.0
    """AdamW's decoupled weight decay, on W_enc and on a W_dec without constraint; never on biases, thresholds, gates."""
    clip: Annotated[float | None, Range(above=0, most=1e6)] = 1.0
    """Largest L2 norm of this SAE's whole gradient; null for no clipping."""
    schedule: Schedule = field(default_factory=Schedule)
    """How the learning rate moves over training."""
    seed: Annotated[int | None, SEED] = None
    """Seed of the initial weights and of any noise. Default: derived from the run's seed and this SAE's name."""
    b_dec_init: Centre = "geometric_median"
    """Where b_dec starts: the geometric median or mean of a sample of the training data, or zero."""
    tied_init: bool = True
    """Start W_enc as W_dec transposed; false: as random unit columns of its own. Transcoders always start untied."""
    datapoint_init: Annotated[float, Range(least=0, most=1)] = 0.0
    """Share of the training data in the starting directions, in [0, 1]: 0 random rows, 1 centred samples themselves."""
    encoder_scale: Annotated[float, Range(above=0, most=1000)] = 1.0
    """Factor on the starting W_enc, after the scale that fits the initial sample (TopK kinds start from unit columns)."""
    decoder_scale: Annotated[float, Range(above=0, most=1000)] = 1.0
    """The same for W_dec. Only for decoders without constraint; the others keep norm 1."""
    skip: bool = False
    """Transcoders: add x @ W_skip, a linear path past the latents that starts at zero (arXiv 2501.18823)."""
    dead_after: Annotated[int | None, Range(least=1, most=LONGEST)] = None
    """Tokens without firing after which a latent counts as dead. Default: 10M, at most 5 % of training."""
    init_from: str | None = None
    """Start from this trained SAE's folder (`runs/<name>/saes/<sae>`), of the same variant and widths: its weights, brought
    to the units of these data. Everything else (lr, schedule, counters) begins anew."""

    def check(self) -> None:
        """Raise `UserError` for values that make no sense; called when the SAE is built, which can name it."""
        check_fields(self)
        if not isinstance(self.schedule, Schedule):
            raise UserError(f"schedule must be a Schedule, got {short(self.schedule)}")
        self.schedule.check()
        if self.lr is not None:
            self.schedule.check_lowest(self.lr)
        if self.expansion is not None and self.d_sae is not None:
            raise UserError("expansion and d_sae exclude each other: give one of them")
        if self.init_from is not None:
            for f in fields(CommonFields):
                if f.name in _OF_A_NEW_START and getattr(self, f.name) != f.default:
                    raise UserError(f"{f.name} is for weights that start anew: drop it, or init_from")

    def width(self, d_in: int) -> int:
        """d_sae for activations of width `d_in`. Raises `UserError` for none."""
        if self.d_sae is not None:
            return self.d_sae
        if width := round(d_in * (8 if self.expansion is None else self.expansion)):
            return width
        raise UserError(f"expansion {self.expansion} of d_in = {d_in} leaves no latent: raise it, or give d_sae")

    def default_lr(self, d_out: int, horizon: Horizon) -> float:
        """The peak learning rate when none is given: what more steps, and noisier ones, bear (docs/training.md)."""
        return self.lr_factor * _LR * d_out**-0.5 * (horizon.tokens_per_step / horizon.steps) ** _LR_POWER

    def spec(self) -> dict[str, Any]:
        """This config as plain data, `{class_path, init_args}`: what checkpoints and exports keep."""
        init_args = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        return {"class_path": class_path(type(self)), "init_args": init_args}


def class_path(kind: type) -> str:
    """The module that defines a class, and its name there."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _plain(value: Any) -> Any:
    if isinstance(value, CommonFields):
        return value.spec()
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
