"""Metrics' keys as people say them, and which way is better."""

from typing import NamedTuple


class Word(NamedTuple):
    """A metric's name for people."""

    label: str
    better: str | None = None
    """`low` or `high`; None of what is neither."""
    percent: bool = False
    """Whether it is shown as a percentage."""


WORDS = {
    "l0": Word("L0 (active latents per token)"),
    "fvu": Word("FVU (fraction of variance unexplained)", "low"),
    "loss_recovered": Word("loss recovered", "high"),
    "loss_recovered_mean": Word("loss recovered (of mean ablation)", "high"),
    "loss_recovered_all": Word("loss recovered, all tokens spliced", "high"),
    "loss_recovered_mean_all": Word("loss recovered (of mean ablation), all tokens spliced", "high"),
    "ce_sae": Word("cross entropy with the SAE", "low"),
    "kl_sae": Word("KL with the SAE", "low"),
    "kl_recovered": Word("KL recovered", "high"),
    "dead": Word("dead latents", "low", percent=True),
    "dense": Word("dense latents (above 10 % of tokens)", "low", percent=True),
    "fvu_median": Word("FVU of the median token", "low"),
    "explained_variance": Word("explained variance", "high"),
    "explained_variance_centered": Word("explained variance, centred", "high"),
    "explained_variance_per_token": Word("explained variance per token", "high"),
    "cosine": Word("cosine of input and reconstruction", "high"),
    "mmcs": Word("MMCS with the true features", "high"),
    "l1": Word("L1 of the latents"),
    "l2_ratio": Word("norm of reconstruction over input"),
    "reconstruction_bias": Word("reconstruction bias"),
    "weight_correlation": Word("encoder–decoder cosine of latents"),
    "clusters": Word("clusters of latents"),
    "silhouette": Word("silhouette of the clusters (−1 to 1)", "high"),
}


def word(key: str) -> Word:
    """A metric's; one that is not known here goes by its key."""
    return WORDS.get(key) or Word(key.replace("_", " "))
