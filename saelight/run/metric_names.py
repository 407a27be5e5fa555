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

LARGER_IS_BETTER = frozenset(
    {"explained_variance", "explained_variance_centered", "explained_variance_per_token", "cosine", "mmcs", "silhouette"}
)
"""Of the others that judge an SAE, smaller is."""
