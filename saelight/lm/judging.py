"""What a language model loses when SAEs stand in for its activations: all SAEs of one place, over batches of windows.

The clean pass and the ablated ones are made once a batch, for all SAEs. All that is kept are sums, by position; the division
comes last.

Shapes: B windows, T tokens, V vocabulary, D width at the place, N rows (tokens of a batch), F d_sae.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import MetricCollection

from saelight.data.norms import ordinary
from saelight.data.row_filter import FIRST_ROWS
from saelight.errors import UserError
from saelight.lm.row_rule import RowRule
from saelight.lm.substitution import Seen, Substitution
from saelight.lm.token_losses import cross_entropy, kl_divergence, log_probabilities
from saelight.metrics import token_metrics
from saelight.metrics.firing import plain_density
from saelight.metrics.reconstruction import PerToken
from saelight.ops.normalisation import Normalisation
from saelight.saes.sae import SAE

_ROWS = 2048
"""Rows that are encoded at once: of an SAE with 65,536 latents half a gigabyte."""


@dataclass
class Candidate:
    """An SAE that is to be judged, or a transcoder."""

    name: str
    sae: SAE
    rule: RowRule = field(default_factory=RowRule)
    """Which rows it was not trained on: there the model's own activations stay."""
    units: Normalisation = field(default_factory=Normalisation)
    """What its input is in."""
    target_units: Normalisation | None = None
    """What its output is in; None: the same."""

    def __call__(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """The latents (N, F), and the reconstruction (N, D) in the model's own units."""
        x_ND = self.units(x_ND)
        f_NF = self.sae.encode(x_ND)
        return f_NF, (self.target_units or self.units).undone(self.sae.reconstruct(f_NF, x_ND))


@dataclass
class Judgement:
    """What came of one SAE."""

    name: str
    metrics: dict[str, float]
    """By name; docs/evaluate.md defines each."""
    density: dict[str, Any] | None
    """How many latents fire how often."""
    positions: dict[str, list[float | None]]
    """Some of the metrics by position in the window."""


class _Means:
    """Means by position and over all positions, of values that come with a mask."""

    def __init__(self, context: int) -> None:
        self.sums_T = torch.zeros(context, dtype=torch.float64)
        self.counts_T = torch.zeros(context, dtype=torch.int64)

    def add(self, values_BT: Tensor, mask_BT: Tensor) -> None:
        n = values_BT.shape[1]
        # Not every device has float64.
        self.sums_T[:n] += values_BT.masked_fill(~mask_BT[:, :n], 0).cpu().double().sum(0)
        self.counts_T[:n] += mask_BT[:, :n].sum(0).cpu()

    @property
    def mean(self) -> float:
        return float(self.sums_T.sum() / self.counts_T.sum())

    @property
    def by_position(self) -> list[float | None]:
        return [value if math.isfinite(value) else None for value in (self.sums_T / self.counts_T).tolist()]


class _Batch(NamedTuple):
    """A batch of windows, and what of it counts."""

    seen: Seen
    counted_BT: Tensor
    """bool: tokens at which the SAE stands in, and that means count."""
    predicts_BT: Tensor
    """bool (B, T - 1): those of which it is known what they are to predict: no padding follows them."""


class _Sums:
    """All that is summed of one SAE."""

    def __init__(self, context: int, metrics: MetricCollection) -> None:
        names = ("ce_sae", "kl_sae", "ce_sae_all", "kl_sae_all", "l0", "error", "spread", "excluded")
        self.means = {name: _Means(context) for name in names}
        self.metrics = metrics


class Judge:
    """Judges all SAEs of one place.

    Batches wait until the first 8,192 rows that count are there (fewer where there are no more): their mean is what mean
    ablation puts everywhere, and limits of norms come from them.

    Args:
        special: Token ids at which the model's own activations stay and that no mean counts; empty: none.
        context: The longest window.
        done: Told of the tokens of each batch that has been judged.
    """

    def __init__(
        self,
        substitution: Substitution,
        candidates: Sequence[Candidate],
        special: Sequence[int],
        context: int,
        done: Callable[[int], object] = lambda tokens: None,
    ) -> None:
        self._substitution, self._candidates, self._done = substitution, candidates, done
        self._special = torch.tensor(sorted(special), dtype=torch.int64)
        names = ("ce_clean", "ce_zero", "ce_mean", "kl_zero", "kl_mean")
        self._shared = {name: _Means(context) for name in names}
        self._sums = [
            _Sums(context, token_metrics(c.sae.d_out, c.sae.d_sae, density=True).to(c.sae.W_dec.device)) for c in candidates
        ]
        self._waiting: list[_Batch] = []
        self._mean_D: Tensor | None = None
        self._limits: dict[RowRule, float] = {}
        self.tokens = 0
        """Tokens that count, so far."""

    @torch.no_grad()
    def add(self, ids_BT: Tensor, real_BT: Tensor) -> None:
        """Judge by a batch of windows: ids (B, T), and which of them are no padding, which is at the end."""
        counted_BT = real_BT & ~torch.isin(ids_BT, self._special.to(ids_BT.device))
        seen = self._substitution.look(ids_BT, real_BT.long())
        batch = _Batch(seen, counted_BT, counted_BT[:, :-1] & real_BT[:, 1:])
        self.tokens += int(counted_BT.sum())
        if self._mean_D is not None:
            self._judge(batch)
            return
        self._waiting.append(batch)
        if self.tokens >= FIRST_ROWS:
            self._freeze()

    @torch.no_grad()
    def finish(self) -> list[Judgement]:
        """The judgements, in the candidates' order."""
        if self._waiting:
            self._freeze()
        return [self._judgement(c, sums) for c, sums in zip(self._candidates, self._sums, strict=True)]

    def _freeze(self) -> None:
        """Take mean and limits from the rows that wait, and judge by these."""
        if not self.tokens:
            raise UserError("no token of the text counts, all are special ones: give other text, or splice_special: true")
        rows = [_rows_of(batch) for batch in self._waiting]
        x_ND, y_ND, ids_N, positions_N = (torch.cat(parts) for parts in zip(*rows, strict=True))
        # A few sinks would decide alone where the mean is.
        self._mean_D = ordinary(y_ND[:FIRST_ROWS].cpu()).double().mean(0)
        for candidate in self._candidates:
            if candidate.rule not in self._limits:
                self._limits[candidate.rule] = candidate.rule.limit(x_ND, ids_N, positions_N)
        for sums in self._sums:
            for metric in sums.metrics.values():
                if isinstance(metric, PerToken):
                    metric.mean_D = self._mean_D.float()
        waiting, self._waiting = self._waiting, []
        while waiting:
            self._judge(waiting.pop(0))

    def _judge(self, batch: _Batch) -> None:
        seen = batch.seen
        log_p_BTV = log_probabilities(self._substitution.put(seen, seen.y_BTD))
        self._shared["ce_clean"].add(cross_entropy(log_p_BTV, seen.ids_BT), batch.predicts_BT)
        assert self._mean_D is not None
        mean_BTD = self._mean_D.to(seen.y_BTD).expand_as(seen.y_BTD)
        for name, ablated_BTD in (("zero", torch.zeros_like(seen.y_BTD)), ("mean", mean_BTD)):
            self._add_losses(self._shared, name, batch, log_p_BTV, ablated_BTD)
        for candidate, sums in zip(self._candidates, self._sums, strict=True):
            out_BTD, excluded_BT = self._reconstruct(candidate, sums, batch)
            y_BTD = torch.where(excluded_BT[..., None], seen.y_BTD, out_BTD)
            losses = self._add_losses(sums.means, "sae", batch, log_p_BTV, y_BTD)
            if bool(excluded_BT.any()):
                self._add_losses(sums.means, "sae_all", batch, log_p_BTV, out_BTD)
            else:
                sums.means["ce_sae_all"].add(losses[0], batch.predicts_BT)
                sums.means["kl_sae_all"].add(losses[1], batch.counted_BT)
        self._done(int(seen.mask_BT.sum()))

    def _add_losses(
        self, means: dict[str, _Means], name: str, batch: _Batch, log_p_BTV: Tensor, y_BTD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy (B, T - 1) and KL (B, T) with `y_BTD` in place, which are added to the means of this name."""
        log_q_BTV = log_probabilities(self._substitution.put(batch.seen, y_BTD))
        losses = cross_entropy(log_q_BTV, batch.seen.ids_BT), kl_divergence(log_p_BTV, log_q_BTV)
        means[f"ce_{name}"].add(losses[0], batch.predicts_BT)
        means[f"kl_{name}"].add(losses[1], batch.counted_BT)
        return losses

    def _reconstruct(self, candidate: Candidate, sums: _Sums, batch: _Batch) -> tuple[Tensor, Tensor]:
        """The reconstruction at all tokens that count (others as they were): (B, T, D), and which of these the SAE was not
        trained on: (B, T) bool. Adds what is measured of the reconstruction itself."""
        counted_BT, y_BTD = batch.counted_BT, batch.seen.y_BTD
        x_ND, y_ND, ids_N, positions_N = _rows_of(batch)
        excluded_N = candidate.rule.excludes(x_ND, ids_N, positions_N, self._limits[candidate.rule])
        out_ND = torch.empty_like(y_ND)
        l0_N = torch.empty(len(x_ND), device=x_ND.device)
        for start in range(0, len(x_ND), _ROWS):
            rows = slice(start, start + _ROWS)
            f_NF, out_ND[rows] = candidate(x_ND[rows])
            l0_N[rows] = (f_NF != 0).sum(1).float()
            kept_N = ~excluded_N[rows]
            if bool(kept_N.any()):
                sums.metrics.update(x=y_ND[rows][kept_N], x_hat=out_ND[rows][kept_N], f=f_NF[kept_N])
        assert self._mean_D is not None
        values = {
            "l0": l0_N,
            "error": (y_ND - out_ND).square().sum(1),
            "spread": (y_ND - self._mean_D.to(y_ND)).square().sum(1),
            "excluded": excluded_N.float(),
        }
        excluded_BT = torch.zeros_like(counted_BT).masked_scatter(counted_BT, excluded_N)
        for name, values_N in values.items():
            values_BT = torch.zeros(counted_BT.shape, device=x_ND.device).masked_scatter(counted_BT, values_N.float())
            sums.means[name].add(values_BT, counted_BT if name == "excluded" else counted_BT & ~excluded_BT)
        return y_BTD.masked_scatter(counted_BT[..., None], out_ND.to(y_BTD)), excluded_BT

    def _judgement(self, candidate: Candidate, sums: _Sums) -> Judgement:
        shared, own = self._shared, sums.means
        values = {name: shared[name].mean for name in ("ce_clean", "ce_zero", "ce_mean", "kl_zero", "kl_mean")}
        values |= {name: own[name].mean for name in ("ce_sae", "kl_sae")}
        spliced = {"": own["ce_sae"].mean}
        if excluded := own["excluded"].mean:
            spliced["_all"] = own["ce_sae_all"].mean
            values |= {"excluded": excluded, "ce_sae_all": own["ce_sae_all"].mean, "kl_sae_all": own["kl_sae_all"].mean}
        for ending, ce in spliced.items():
            for ablation, suffix in (("zero", ""), ("mean", "_mean")):
                lost = values[f"ce_{ablation}"] - values["ce_clean"]
                values[f"loss_recovered{suffix}{ending}"] = _share(values[f"ce_{ablation}"] - ce, lost)
        values["kl_recovered"] = _share(values["kl_zero"] - values["kl_sae"], values["kl_zero"])
        measured = sums.metrics.compute()
        frequency_F = measured.pop("density").view(candidate.sae.d_sae)
        values |= {key: float(value) for key, value in measured.items()}
        positions = {name: shared[name].by_position for name in ("ce_clean", "ce_zero", "ce_mean")}
        positions |= {name: own[name].by_position for name in ("ce_sae", "kl_sae", "l0")}
        pairs = zip(own["error"].sums_T.tolist(), own["spread"].sums_T.tolist(), strict=True)
        positions["fvu"] = [e / s if s > 0 and math.isfinite(e) else None for e, s in pairs]
        return Judgement(candidate.name, values, plain_density(frequency_F), positions)


def _rows_of(batch: _Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What counts of a batch: float32 rows (N, D) read and written to, their token ids and positions (N,)."""
    seen, counted_BT = batch.seen, batch.counted_BT
    positions_BT = torch.arange(counted_BT.shape[1], device=counted_BT.device).expand_as(counted_BT)
    return seen.x_BTD[counted_BT].float(), seen.y_BTD[counted_BT].float(), seen.ids_BT[counted_BT], positions_BT[counted_BT]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
