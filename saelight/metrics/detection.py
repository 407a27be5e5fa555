"""Latents as detectors of known features: precision, recall and F1 of each pair of a feature and a latent.

Which latent is judged for which feature is settled beforehand, by the weights alone (`directions.nearest`: the latent
whose decoder row has the largest cosine with the feature's direction). Over the tokens seen,

    precision = both / fired,   recall = both / present,   F1 = 2 both / (fired + present)

with `fired` the tokens on which the latent fires, `present` those on which the feature is active, `both` those on which
both hold. A latent that never fires has precision 0. The means are over pairs whose feature was active at all.

Shapes: B batch (tokens), F d_sae, G ground-truth features, P pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from saelight.errors import UserError
from saelight.metrics.directions import Matching
from saelight.metrics.sums import Sums


class Hits(NamedTuple):
    """Tokens, counted for each pair: int64 (P,)."""

    fired_P: Tensor
    present_P: Tensor
    both_P: Tensor


class Detection(NamedTuple):
    """What each pair is worth: float64 (P,), NaN where the feature was never active."""

    precision_P: Tensor
    recall_P: Tensor
    f1_P: Tensor


def hits(active_BG: Tensor, f_BF: Tensor, pairs: Matching, signed: bool = False) -> Hits:
    """One batch's counts: `active_BG` is bool, or the features' magnitudes; `f_BF` the latents.

    Args:
        signed: for latents that may be negative: one matched with a negative cosine detects where it is < 0, the others
            where they are > 0. Otherwise a latent fires where it is not 0.
    """
    if len(active_BG) != len(f_BF):
        raise UserError(f"active has {len(active_BG)} tokens and f {len(f_BF)}: give those of the same tokens")
    present_BP = active_BG[:, pairs.feature_P] != 0
    f_BP = f_BF[:, pairs.latent_P]
    fired_BP = f_BP * pairs.cosine_P.sign().to(f_BP) > 0 if signed else f_BP != 0
    return Hits(fired_BP.sum(0), present_BP.sum(0), (fired_BP & present_BP).sum(0))


def detection(counts: Hits) -> Detection:
    """Each pair's precision, recall and F1."""
    fired_P, present_P, both_P = (count.double() for count in counts)
    precision_P = torch.where(fired_P > 0, both_P / fired_P, 0.0)
    values = precision_P, both_P / present_P, 2 * both_P / (fired_P + present_P)
    return Detection(*(torch.where(present_P > 0, value, torch.nan) for value in values))


class Detecting(Sums):
    """The shared counts.

    Args:
        pairs: which latent is judged for which feature.
        signed: as of `hits`.
    """

    higher_is_better = True
    feature_P: Tensor
    latent_P: Tensor
    cosine_P: Tensor
    fired_P: Tensor
    present_P: Tensor
    both_P: Tensor

    def __init__(self, pairs: Matching, signed: bool = False) -> None:
        super().__init__()
        self.signed = signed
        for name, value in pairs._asdict().items():
            self.register_buffer(name, value, persistent=False)
        for name in Hits._fields:
            self.add_sum(name, len(pairs.feature_P), dtype=torch.int64)

    def update(self, active: Tensor, f: Tensor) -> None:
        """Add one batch: the features that are `active` (B, G) and the latents `f` (B, F)."""
        pairs = Matching(self.feature_P, self.latent_P, self.cosine_P)
        self.add(**hits(active, f, pairs, self.signed)._asdict())

    @property
    def each(self) -> Detection:
        """Precision, recall and F1 of every pair."""
        return detection(Hits(self.fired_P, self.present_P, self.both_P))


class Precision(Detecting):
    """Mean over pairs of the share of the latent's tokens on which the feature was active."""

    def compute(self) -> Tensor:
        return self.each.precision_P.nanmean()


class Recall(Detecting):
    """Mean over pairs of the share of the feature's tokens on which the latent fired."""

    def compute(self) -> Tensor:
        return self.each.recall_P.nanmean()


class F1(Detecting):
    """Mean over pairs of the harmonic mean of precision and recall."""

    def compute(self) -> Tensor:
        return self.each.f1_P.nanmean()


def detection_metrics(pairs: Matching, signed: bool = False) -> MetricCollection:
    """Precision, recall and F1 on one set of counts: `update(active=active_BG, f=f_BF)`."""
    metrics: dict[str, Metric | MetricCollection] = {
        "f1": F1(pairs, signed),
        "precision": Precision(pairs, signed),
        "recall": Recall(pairs, signed),
    }
    return MetricCollection(metrics, compute_groups=[list(metrics)])
