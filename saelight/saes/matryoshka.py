"""Matryoshka SAE: nested dictionaries, each prefix of the latents reconstructs on its own (arXiv 2503.17547).

    prefixes m_1 < … < m_n = F
    reconstruction term = mean over the prefixes of mean_B ‖x - x̂_{1:m}‖² / D,   x̂_{1:m} = f_{1:m} @ W_dec_{1:m} + b_dec

The latents, the penalty and AuxK (on the whole reconstruction's error) are those of the variant underneath. Prefixes are
fixed groups, or drawn anew at each step, P(m) ∝ √m - √(m - 1), the "Pareto(0.5)" law of the authors' code, the same on
every rank.
Shapes: B batch, D d_out, F d_sae.
"""

from dataclasses import dataclass, field, fields
from functools import cache
from itertools import accumulate
from typing import Annotated, Any

import torch
from torch import Tensor

from saelight.errors import UserError
from saelight.ops.error import nested_mean_squares
from saelight.ops.noise import generator
from saelight.ranges import Range, short
from saelight.saes.batch_topk import BatchTopK
from saelight.saes.losses import Entries, Moment, Reconstruction
from saelight.saes.plain_data import variants
from saelight.saes.sae import SAE, SAEConfig
from saelight.schedules import Horizon

_PARETO_POWER = 0.5


@dataclass(kw_only=True)
class Matryoshka(SAEConfig):
    """Nested dictionaries over TopK, BatchTopK, ReLU or JumpReLU: the first latents learn the most general features."""

    base: SAEConfig = field(default_factory=BatchTopK)
    """The variant underneath with its own settings (k, sparsity, ...); width, lr and the like are set here, not there."""
    group_fractions: Annotated[list[float], Range(above=0, most=1)] = field(
        default_factory=lambda: [1 / 32, 1 / 16, 1 / 8, 1 / 4, 17 / 32]
    )
    """Each group's share of the latents, adding up to 1: the prefixes end where groups do."""
    random_prefixes: Annotated[int | None, Range(least=1, most=10_000)] = None
    """Draw this many prefixes at each step, the whole dictionary among them, in place of groups. The paper's is 10."""

    def check(self) -> None:
        super().check()
        if not self.base.nests:
            known = ", ".join(kind.__name__ for kind in variants() if kind.nests)
            raise UserError(f"base must be one of {known}, not {type(self.base).__name__}")
        self.base.check()
        for f in fields(SAEConfig):
            if getattr(self.base, f.name) != getattr(type(self.base)(), f.name):
                raise UserError(f"set {f.name} beside base, not in it: it is the whole SAE's")
        if abs(sum(self.group_fractions) - 1) > 1e-3:
            raise UserError(f"group_fractions must add up to 1, got {short(self.group_fractions)}")

    def default_lr(self, d_out: int, horizon: Horizon) -> float:
        return self.base.default_lr(d_out, horizon)

    @property
    def module(self) -> type[SAE]:
        return _nested(self.base.module)

    def __getattr__(self, name: str) -> Any:
        # The variant underneath finds its own settings (k, sparsity, ...) in this config.
        if name.startswith("_") or name == "base":
            raise AttributeError(name)
        return getattr(self.base, name)


class _Nested(SAE):
    """Mixed into the variant underneath: the reconstruction term becomes a mean over prefixes."""

    config: Matryoshka
    decodes_once = False

    def __reduce__(self) -> tuple[Any, ...]:
        # The class is made when it is needed: pickle finds none by its name.
        return _empty, (self.config.base.module,), self.__dict__

    def prefixes(self, moment: Moment) -> list[int]:
        """The prefixes' lengths at this moment, ascending, d_sae last."""
        if self.config.random_prefixes is None:
            ends = {max(1, round(end * self.d_sae)) for end in accumulate(self.config.group_fractions)}
            return sorted({min(end, self.d_sae) for end in ends} | {self.d_sae})
        drawn = min(self.config.random_prefixes, self.d_sae) - 1
        if drawn == 0:
            return [self.d_sae]
        weights = torch.arange(self.d_sae, dtype=torch.float64).pow(_PARETO_POWER).diff()
        # No rank in the key: all ranks share the prefixes.
        draw = generator(torch.device("cpu"), self.seed, moment.step, moment.micro_batch, "prefixes")
        return [*sorted((torch.multinomial(weights, drawn, generator=draw) + 1).tolist()), self.d_sae]

    def reconstruction(self, f: Tensor, entries: Entries, x_BD: Tensor, y_BD: Tensor, moment: Moment) -> Reconstruction:
        offset = self.b_dec if self.W_skip is None else self.b_dec + x_BD @ self.W_skip
        # Each block is decoded once.
        blocks = entries.decode_blocks(f, self.W_dec, self.prefixes(moment))
        return Reconstruction(*nested_mean_squares(y_BD, offset, blocks))


@cache
def _nested(base: type[SAE]) -> type[SAE]:
    """The base's module with the mean over prefixes."""
    return type(f"Nested{base.__name__}", (_Nested, base), {})


def _empty(base: type[SAE]) -> SAE:
    kind = _nested(base)
    return kind.__new__(kind)
