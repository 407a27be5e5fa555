"""The variants under test: one entry here gives a new one every generic test."""

from saelight.saes import Gated, ReLU, SAEConfig, TopK

VARIANTS: dict[str, SAEConfig] = {
    "relu": ReLU(expansion=2, sparsity=0.1, lr=1e-3),
    "topk": TopK(d_sae=40, k=4, lr=1e-3, dead_after=256),
    "gated": Gated(d_sae=24, sparsity=0.1, lr=1e-3, weight_decay=0.01),
}
