"""An SAE taken apart, as readers hand it over and writers take it: tensors under saelight's names, and what they make up.

Shapes: D d_in (d_out where it concerns the target), F d_sae.
"""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saelight import saes
from saelight.errors import UserError
from saelight.ops.normalisation import Normalisation
from saelight.saes.batch_topk import BatchTopKSAE
from saelight.saes.common_fields import class_path
from saelight.saes.matryoshka import Matryoshka
from saelight.saes.plain_data import configure, imported
from saelight.saes.provenance import Provenance
from saelight.saes.sae import SAE, SAEConfig
from saelight.saes.sae_folder import check_finite, published

_SMALLEST, _LARGEST = 2e-38, 1e38
"""Of thresholds, whose logarithm is kept: 0 and less let pass what exceeds 0."""
_ONE = 1e-5  # of the norm that all rows have
_UNIT = 1e-4
"""How far from 1 norms may be that are to be 1: they decide no selection."""


TOPK_KINDS = ("TopK", "AbsTopK", "BatchTopK")
"""The variants with a k."""


@dataclass(kw_only=True)
class Parts:
    """What a reader found."""

    config: SAEConfig
    d_in: int
    d_out: int | None = None
    """Of a transcoder."""
    tensors: dict[str, Tensor]
    """By saelight's names, in its shapes; every threshold, of whatever variant, as `threshold` (F,)."""
    subtracts_b_dec: bool = True
    """Whether its encoder takes b_dec from x: saelight's autoencoders do, its transcoders do not."""
    normalisation: Normalisation = field(default_factory=Normalisation)
    """What its weights expect x in."""
    target_normalisation: Normalisation | None = None
    provenance: Provenance = field(default_factory=Provenance)
    where: Path
    beside: Path | None = None
    """The file in which saelight, if it wrote this, keeps what the format cannot hold."""


def make(kind: str, **fields: Any) -> SAEConfig:
    """The config of one of saelight's variants, by name. Raises `UserError` for values that it does not take."""
    return configure(imported(class_path(getattr(saes, kind))), fields)


def variant(config: SAEConfig) -> str:
    """What encodes and decodes, of a Matryoshka SAE the variant underneath: one of saelight's by its name, a user's by its
    whole path."""
    kind = type(config.base if isinstance(config, Matryoshka) else config)
    return kind.__name__ if kind is getattr(saes, kind.__name__, None) else class_path(kind)


def variant_name(sae: SAE) -> str:
    """The variant in words, for messages."""
    config, name = sae.config, variant(sae.config)
    name = f"Matryoshka over {name}" if isinstance(config, Matryoshka) else name
    return f"{name} transcoder" if sae.is_transcoder else name


@torch.no_grad()
def assemble(parts: Parts, fold: bool = True, allow_nan: bool = False) -> SAE:
    """The SAE that the parts make up, for the model's own activations. Raises `UserError` where they do not fit.

    Args:
        fold: Fold the units it was trained in into its weights; else it expects x in them.
        allow_nan: Take weights that are not finite.
    """
    try:
        sae = parts.config.build(parts.d_in, parts.provenance.seed, parts.d_out)
    except UserError as error:
        raise UserError(f"{parts.where} makes no SAE: {error}") from None
    state, own = dict(parts.tensors), published(sae)
    if "threshold" in state and "log_threshold" in own:
        # float64: the logarithm is to be rounded once.
        state["log_threshold"] = state.pop("threshold").double().clamp(_SMALLEST, _LARGEST).log().float()
    elif "threshold" in state:
        state["threshold"] = _one(state["threshold"], parts.where)
    shapes = {name: tensor.shape for name, tensor in own.items()}
    if shapes != (found := {name: tensor.shape for name, tensor in state.items()}):
        wrong = sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name))
        raise UserError(f"{parts.where}: {', '.join(wrong)} do not fit {variant_name(sae)}: it is damaged")
    sae.load_state_dict(state, strict=False)
    if parts.subtracts_b_dec == sae.is_transcoder:
        shift_F = sae.b_dec.double() @ sae.W_enc.double()
        sae.add_to_z(-shift_F if sae.is_transcoder else shift_F)
    if fold:
        sae.fold_for_use(parts.normalisation, parts.target_normalisation)
    sae.provenance = parts.provenance
    if not allow_nan:
        check_finite(published(sae), str(parts.where))
    return sae.eval().requires_grad_(False)


def _one(threshold_F: Tensor, where: Path) -> Tensor:
    first = threshold_F.flatten()[0]
    if not torch.equal(threshold_F, first.expand_as(threshold_F)):
        raise UserError(
            f"{where}: its thresholds differ, where BatchTopK has one: remove saelight.json to read it as JumpReLU"
        )
    return first.clone()


def plain_copy(sae: SAE) -> SAE:
    """A copy of an SAE, on the CPU and in float32. Raises `UserError` for weights that are not finite."""
    sae = copy.deepcopy(sae).cpu().float().requires_grad_(False)
    check_finite(published(sae), "the SAE")
    return sae


@torch.no_grad()
def ready(sae: SAE, *, unit_rows: bool = False, subtracts_b_dec: bool = True) -> tuple[SAE, dict[str, Tensor]]:
    """A copy of an SAE, on the CPU and in float32, and its tensors as `Parts` has them.

    Args:
        unit_rows: Fold the norms of decoder rows into the latents, where that changes no selection: of ReLU, Gated and
            JumpReLU, and of TopK kinds where all rows have one norm. Free rows of TopK kinds, which select by them, are
            always folded.
        subtracts_b_dec: Whether the reader's encoder takes b_dec from x; else its share moves into the biases.

    Raises:
        UserError: for weights that are not finite.
    """
    sae = plain_copy(sae)
    selects_by_norms = getattr(sae.config, "decoder", None) == "free"
    if selects_by_norms or (unit_rows and (variant(sae.config) not in TOPK_KINDS or _have_one_norm(sae.W_dec))):
        sae.fold_norms()
    if not sae.is_transcoder and not subtracts_b_dec:
        sae.add_to_z(-(sae.b_dec.double() @ sae.W_enc.double()))
    check_finite(published(sae), "the SAE, as the format has it")
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in published(sae).items()}
    if "log_threshold" in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").double().exp().float()
    elif isinstance(sae, BatchTopKSAE):
        tensors["threshold"] = tensors["threshold"].expand(sae.d_sae).contiguous()
    return sae, tensors


def _have_one_norm(W_dec_FD: Tensor) -> bool:
    norms_F = W_dec_FD.norm(dim=1)
    return bool(norms_F.max() - norms_F.min() < _ONE * norms_F.max())


def rows_are_unit(W_dec_FD: Tensor) -> bool:
    """Whether decoder rows have norm 1, but for what decides nothing."""
    return bool(((W_dec_FD.norm(dim=1) - 1).abs() < _UNIT).all())


def with_norms_in_latents(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an SAE that selects by f ‖d‖ and has no other use for the norms: rows of norm 1, latents f ‖d‖. A
    threshold on f ‖d‖ stays."""
    norms_F = tensors["W_dec"].norm(dim=1).clamp_min(1e-12)
    return tensors | {
        "W_enc": tensors["W_enc"] * norms_F,
        "b_enc": tensors["b_enc"] * norms_F,
        "W_dec": tensors["W_dec"] / norms_F[:, None],
    }


def refused(sae: SAE, format: str, why: str) -> UserError:
    """The refusal of a variant that a format cannot say."""
    return UserError(f"{variant_name(sae)} has no form in {format}: {why}")
