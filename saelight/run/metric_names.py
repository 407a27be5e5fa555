"""What a validation measures, known without importing torch (a test compares it with the metrics themselves): a sweep checks
the metric it is to judge by before anything is loaded.
"""

EVALUATED = (
    "l0",
    "l1",
    "dead",
    "dense",
    "fvu",
    "explained_variance",
    "explained_variance_centered",
    "explained_variance_per_token",
    "fvu_median",
    "cosine",
    "l2_ratio",
    "reconstruction_bias",
)
"""Of every validation, in its order."""

TRUTH = "mmcs"
"""Of every validation on data whose true features are known."""

FINAL = ("weight_correlation", "clusters", "silhouette")
"""Measured once, when training is over; in a run's results, and in no log."""

ON_MODEL = (
    "loss_recovered",
    "loss_recovered_mean",
    "ce_clean",
    "ce_sae",
    "ce_zero",
    "ce_mean",
    "kl_sae",
    "kl_zero",
    "kl_mean",
    "kl_recovered",
)
"""What a language model tells of an SAE that stands in for its activations (docs/evaluate.md): by `saelight evaluate`, and
in validations by `EvaluateOnModel`."""

UNSPLICED = (
    "excluded",
    "ce_sae_all",
    "kl_sae_all",
    "loss_recovered_all",
    "loss_recovered_mean_all",
)
"""Beside those, by `saelight evaluate`, of an SAE that was not trained on all rows."""

LARGER_IS_BETTER = frozenset(
    {
        "explained_variance",
        "explained_variance_centered",
        "explained_variance_per_token",
        "cosine",
        "mmcs",
        "silhouette",
        "loss_recovered",
        "loss_recovered_mean",
        "loss_recovered_all",
        "loss_recovered_mean_all",
        "kl_recovered",
    }
)
"""Of the others that judge an SAE, smaller is."""
