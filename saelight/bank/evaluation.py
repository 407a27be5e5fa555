"""How good the SAEs of a bank are on data they do not train on.

Shapes: B batch, D d_in (d_out of a target), F d_sae, G true features.
"""

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from saelight.metrics import find_clusters, latent_features, mmcs, own_cosines, token_metrics
from saelight.metrics.firing import plain_density
from saelight.metrics.reconstruction import PerToken
from saelight.saes import SAE


class Evaluation(nn.Module):
    """The metrics of every SAE, gathered over batches and over ranks."""

    centre_D: Tensor
    """What per-token metrics are centred on: the ordinary mean (D,) of the sample that training began with. It is in
    checkpoints."""

    def __init__(self, saes: list[SAE]) -> None:
        super().__init__()
        collections = [token_metrics(sae.d_out, sae.d_sae, density=True) for sae in saes]
        self.metrics = nn.ModuleList(collections)
        self._per_token = [m for metrics in collections for m in metrics.values() if isinstance(m, PerToken)]
        self.register_buffer("centre_D", torch.zeros(saes[0].d_out))
        self.frequencies: list[Tensor] = []
        """How often each latent (F,) of each SAE fired in what was last finished."""

    def update(self, saes: list[SAE], x_BD: Tensor, y_BD: Tensor) -> None:
        """Add one batch of normalised activations and targets."""
        for metric in self._per_token:
            metric.mean_D = self.centre_D
        for sae, metrics in self._each(saes):
            f_BF = sae.encode(x_BD)
            metrics.update(x=y_BD, x_hat=sae.reconstruct(f_BF, x_BD), f=f_BF)

    def finish(self, saes: list[SAE], truth_GD: Tensor | None) -> list[dict[str, float]]:
        """Each SAE's metrics over all that was added, and MMCS where the true features are known; then start over."""
        results, self.frequencies = [], []
        for sae, metrics in self._each(saes):
            values = metrics.compute()
            # torchmetrics makes a scalar of a single latent's.
            self.frequencies.append(values.pop("density").view(sae.d_sae))
            results.append({key: float(value) for key, value in values.items()})
            if truth_GD is not None:
                results[-1]["mmcs"] = float(mmcs(truth_GD.to(sae.W_dec), sae.W_dec, signed=sae.signed))
            metrics.reset()
        return results

    def _each(self, saes: list[SAE]) -> Iterator[tuple[SAE, MetricCollection]]:
        for sae, metrics in zip(saes, self.metrics, strict=True):
            yield sae, cast(MetricCollection, metrics)

    def keys(self, truth_GD: Tensor | None) -> list[str]:
        """The names of what `finish` returns."""
        metrics = cast(MetricCollection, self.metrics[0])
        return [str(key) for key in metrics if key != "density"] + ([] if truth_GD is None else ["mmcs"])

    def density(self, i: int) -> dict[str, Any] | None:
        """How many latents of the i-th SAE fired how often in what was last finished, as plain data; None where nothing was,
        or of an SAE that is not finite."""
        return plain_density(self.frequencies[i]) if self.frequencies else None

    def latents(self, sae: SAE, i: int) -> dict[str, float]:
        """What the weights of alive latents say of the i-th SAE, by what was last finished: once, at the end of training,
        for clusters take time."""
        return _latents(sae, self.frequencies[i])


def _latents(sae: SAE, frequency_F: Tensor) -> dict[str, float]:
    W_enc_DF = sae.W_dec.T if sae.W_enc is None else sae.W_enc
    # Between a transcoder's two spaces of unequal width there are no cosines.
    cosine_F = own_cosines(W_enc_DF, sae.W_dec) if W_enc_DF.T.shape == sae.W_dec.shape else None
    features_A3 = latent_features(frequency_F, sae.encoder_bias, cosine_F)
    known = cosine_F is not None and bool(features_A3.isfinite().all())
    correlation = float(features_A3[:, 2].mean()) if known else math.nan
    return {"weight_correlation": correlation} | find_clusters(features_A3)._asdict()
