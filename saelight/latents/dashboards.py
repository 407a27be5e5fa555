"""A latent as SAEDashboard writes one for Neuronpedia (sae-dashboard 0.8.0): a feature of its `batch-0.json`."""

import math
from typing import Any

import numpy as np

from saelight.latents.known_latent import Context, Latent, Logit
from saelight.latents.latents_reading import Latents

_DIGITS = 3
"""Decimals of all numbers there."""
_ALIGNED = 3
"""Coordinates of a decoder row, and latents that fire with it, that a table there has."""


def feature(latents: Latents, latent: Latent, decoder_D: np.ndarray, dataset: str, window: int) -> dict[str, Any]:
    """One latent.

    What is not collected is empty: the model's neurons that fire with it, the histogram of logits. That of activations
    has octaves in place of 50 equal bins, the intervals are octaves too.

    Args:
        decoder_D: Its decoder row.
        dataset: What the rows are of.
        window: Tokens of what is called a prompt there.
    """
    aligned = np.argsort(-np.abs(decoder_D), kind="stable")[:_ALIGNED]
    share = float(np.abs(decoder_D).sum()) or 1.0
    together = latent.together[:_ALIGNED]
    return {
        "feature_index": latent.index,
        "neuron_alignment_indices": aligned.tolist(),
        "neuron_alignment_values": rounded(decoder_D[aligned]),
        "neuron_alignment_l1": rounded(decoder_D[aligned] / share),
        "correlated_neurons_indices": [],
        "correlated_neurons_l1": [],
        "correlated_neurons_pearson": [],
        "correlated_features_indices": [one.latent for one in together],
        "correlated_features_l1": [round(one.cosine, _DIGITS) for one in together],
        "correlated_features_pearson": [_pearson(latents, latent, one.latent, one.count or 0) for one in together],
        "neg_str": _texts(latent.suppressed),
        "neg_values": [round(one.logit, _DIGITS) for one in latent.suppressed],
        "pos_str": _texts(latent.promoted),
        "pos_values": [round(one.logit, _DIGITS) for one in latent.promoted],
        "frac_nonzero": latent.density,
        "freq_hist_data_bar_values": [round(low * math.sqrt(2), _DIGITS) for low, _ in latent.histogram],
        "freq_hist_data_bar_heights": [count for _, count in latent.histogram],
        "logits_hist_data_bar_heights": [],
        "logits_hist_data_bar_values": [],
        "n_prompts_total": latents.rows // window,
        "n_tokens_in_prompt": window,
        "dataset": dataset,
        "decoder_weights_dist": [],
        "activations": _activations(latent),
        "vector": [float(weight) for weight in decoder_D],
    }


def rounded(values: np.ndarray) -> list[float]:
    """As many decimals as there are there."""
    return [round(float(value), _DIGITS) for value in values]


def _texts(logits: list[Logit]) -> list[str]:
    return [one.text for one in logits]


def _pearson(latents: Latents, latent: Latent, other: int, both: int) -> float:
    """Of whether the two fire, on the sampled rows."""
    rows = latents.meta["sampled_rows"]
    a, b = (int(n) for n in latents.fired_in_sample[[latent.index, other]])
    spread = math.sqrt(a * (rows - a) * b * (rows - b))
    return round((rows * both - a * b) / spread, _DIGITS) if spread else 0.0


def _activations(latent: Latent) -> list[dict[str, Any]]:
    """The strongest contexts, whose bin is called [-1, maximum), and those of each interval with its share."""
    of = dict(latent.histogram)
    found = [_activation(context, -1, latent.maximum, -1) for context in latent.top]
    for interval in latent.samples:
        share = of.get(interval.low, 0) / max(1, latent.fired)
        found += [_activation(context, interval.low, interval.high, share) for context in interval.contexts]
    return found


def _activation(context: Context, low: float, high: float, share: float) -> dict[str, Any]:
    return {
        "bin_min": round(low, _DIGITS),
        "bin_max": round(high, _DIGITS),
        "bin_contains": round(share, 5),
        "tokens": [token.text for token in context.tokens],
        "values": [round(token.activation, _DIGITS) for token in context.tokens],
        "qualifying_token_index": context.peak,
    }
