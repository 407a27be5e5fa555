"""Do the latents fall into kinds? HDBSCAN on how often each fires, its encoder bias and how its two directions agree.

Shapes: F d_sae, A alive latents, C columns.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_MOST = 8192  # HDBSCAN's time grows with the square: 0.25 s of one core here, 1 s at 16,384 and 23 s at 65,536
_JUDGED = 2000  # points of the silhouette, which looks at every pair of them
_SMALLEST, _SMALLEST_SHARE = 5, 0.01  # at a fixed 5, mere noise of 16,384 points falls into anything from 2 to 500 clusters


class Clusters(NamedTuple):
    """What HDBSCAN found."""

    clusters: float
    """Their number; NaN where the features are not finite. Latents that are in none (noise) are no cluster."""
    silhouette: float
    """How far apart they are, from -1 to 1: the mean silhouette of the latents in them; NaN with fewer than two."""


def latent_features(frequency_F: Tensor, bias_F: Tensor | None, cosine_F: Tensor | None) -> Tensor:
    """log10 firing frequency, encoder bias and encoder–decoder cosine of the alive latents: float64 (A, 3), on the CPU.

    What a variant does not have is None, and 0 throughout. A latent of which no frequency is known (NaN) stays.
    """
    missing_F = torch.zeros_like(frequency_F)
    columns = [frequency_F.log10(), *(missing_F if column is None else column for column in (bias_F, cosine_F))]
    return torch.stack([column.detach().cpu().double() for column in columns], 1)[frequency_F.cpu() != 0]


def find_clusters(features_AC: Tensor, seed: int = 0) -> Clusters:
    """HDBSCAN's clusters of the rows, each column standardised; a constant column tells nothing and is left out.

    A cluster has at least 5 rows and 1 % of all. More than 8,192 rows are represented by a sample of as many, drawn by
    `seed`; the silhouette (Euclidean, of rows in clusters) is that of 2,000 of them at most. The same rows give the same
    numbers.

    Source: Campello, Moulavi & Sander, "Density-based clustering based on hierarchical density estimates" (2013);
    Rousseeuw, "Silhouettes" (1987). Both are scikit-learn's.
    """
    from sklearn.cluster import HDBSCAN  # here, for it takes a second to import
    from sklearn.metrics import silhouette_score

    rows = features_AC.numpy()
    if not np.isfinite(rows).all():
        return Clusters(np.nan, np.nan)
    if len(rows) > _MOST:
        rows = rows[np.random.default_rng(seed).choice(len(rows), _MOST, replace=False)]
    smallest = max(_SMALLEST, round(_SMALLEST_SHARE * len(rows)))
    if len(rows) < 2 * smallest:
        return Clusters(0.0, np.nan)
    mean, spread = rows.mean(0), rows.std(0)
    varies = spread > 1e-9 * np.abs(mean)
    if not varies.any():
        return Clusters(0.0, np.nan)
    rows = ((rows - mean) / np.where(varies, spread, 1.0))[:, varies]
    labels = HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(rows)
    clusters, inside = labels.max() + 1, labels >= 0
    if clusters < 2:
        return Clusters(float(clusters), np.nan)
    judged = min(_JUDGED, int(inside.sum()))
    silhouette = silhouette_score(rows[inside], labels[inside], sample_size=judged, random_state=seed)
    return Clusters(float(clusters), float(silhouette))
