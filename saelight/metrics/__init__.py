"""Metrics of sparse autoencoders: one definition each, exact under any batching and any number of processes.

`token_metrics(d_in, d_sae)` is the usual set; docs/metrics.md defines each.
"""

from collections.abc import Mapping

from torch import Tensor
from torchmetrics import Metric, MetricCollection

from saelight.metrics.clusters import Clusters, find_clusters, latent_features
from saelight.metrics.detection import F1, Precision, Recall, detection_metrics
from saelight.metrics.dictionary import MCC, MMCS, Coherence, WeightCorrelation
from saelight.metrics.directions import Matching, coherence, mcc, mmcs, nearest, one_to_one, own_cosines, weight_correlation
from saelight.metrics.firing import L0, L1, Dead, Dense, Density
from saelight.metrics.functional import DensityHistogram, density_histogram
from saelight.metrics.reconstruction import (
    FVU,
    Cosine,
    ExplainedVariance,
    ExplainedVarianceCentered,
    ExplainedVariancePerToken,
    FVUMedian,
    L2Ratio,
    ReconstructionBias,
)

__all__ = [
    "F1",
    "FVU",
    "L0",
    "L1",
    "MCC",
    "MMCS",
    "Clusters",
    "Coherence",
    "Cosine",
    "Dead",
    "Dense",
    "Density",
    "DensityHistogram",
    "ExplainedVariance",
    "ExplainedVarianceCentered",
    "ExplainedVariancePerToken",
    "FVUMedian",
    "L2Ratio",
    "Matching",
    "Precision",
    "Recall",
    "ReconstructionBias",
    "WeightCorrelation",
    "coherence",
    "density_histogram",
    "detection_metrics",
    "find_clusters",
    "latent_features",
    "mcc",
    "mmcs",
    "nearest",
    "one_to_one",
    "own_cosines",
    "token_metrics",
    "weight_correlation",
]


def token_metrics(d_in: int, d_sae: int, mean: Tensor | None = None, density: bool = False) -> MetricCollection:
    """All metrics made of tokens, under the names they are logged by: `update(x=x_BD, x_hat=x_hat_BD, f=f_BF)`.

    x is what x̂ should be: the activations of an autoencoder, the targets of a transcoder.

    Every value is a scalar. The metrics of one family share one set of sums, so the whole set costs four.

    Args:
        d_in: width of x, D (`d_out` of a transcoder).
        d_sae: number of latents, F.
        mean: what `explained_variance_per_token` and `fvu_median` are centred on, (D,); None for the origin.
        density: add `density`, the one that is no scalar: each latent's firing frequency, (F,).
    """
    families: list[Mapping[str, Metric]] = [
        {"l0": L0(d_sae), "l1": L1(d_sae), "dead": Dead(d_sae), "dense": Dense(d_sae)}
        | ({"density": Density(d_sae)} if density else {}),
        {
            "fvu": FVU(d_in),
            "explained_variance": ExplainedVariance(d_in),
            "explained_variance_centered": ExplainedVarianceCentered(d_in),
        },
        {"explained_variance_per_token": ExplainedVariancePerToken(mean), "fvu_median": FVUMedian(mean)},
        {"cosine": Cosine(), "l2_ratio": L2Ratio(), "reconstruction_bias": ReconstructionBias()},
    ]
    metrics: dict[str, Metric | MetricCollection] = {name: metric for family in families for name, metric in family.items()}
    # Named, not found by comparing states: a first batch with a NaN in it would look like states that differ.
    return MetricCollection(metrics, compute_groups=[list(family) for family in families])
