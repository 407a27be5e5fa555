"""The variants under test: one entry here gives a new one every generic test."""

from saelight.saes import (
    AbsTopK,
    BatchTopK,
    Gated,
    GatedHardConcrete,
    HardConcrete,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    ReLU,
    SAEConfig,
    TopK,
)

VARIANTS: dict[str, SAEConfig] = {
    "relu": ReLU(expansion=2, sparsity=0.1, lr=1e-3),
    "topk": TopK(d_sae=40, k=4, lr=1e-3, dead_after=256),
    "gated": Gated(d_sae=24, sparsity=0.1, lr=1e-3, weight_decay=0.01),
    "abs_topk": AbsTopK(d_sae=40, k=4, lr=1e-3, dead_after=256),
    "batch_topk": BatchTopK(d_sae=40, k=4, lr=1e-3, dead_after=256),
    "hard_concrete": HardConcrete(d_sae=32, lr=1e-3),
    "hard_concrete_free": HardConcrete(d_sae=32, lr=1e-3, input_dependent=False),
    "gated_hard_concrete": GatedHardConcrete(d_sae=32, lr=1e-3),
    "jump_relu": JumpReLU(d_sae=32, lr=1e-3),
    "jump_relu_tanh": JumpReLU(d_sae=32, lr=1e-3, penalty="tanh", pre_activation_coefficient=1e-3, dead_after=256),
    "jump_relu_target": JumpReLU(d_sae=32, lr=1e-3, penalty="target", target_l0=4.0),
    "relu_p": ReLU(d_sae=32, lr=1e-3, p_end=0.5, resample_every=0.3),
    "relu_target_l0": ReLU(d_sae=32, lr=1e-3, target_l0=4.0),
    "matryoshka": Matryoshka(d_sae=40, lr=1e-3, base=BatchTopK(k=4)),
    "matryoshka_relu": Matryoshka(d_sae=40, lr=1e-3, base=ReLU(), random_prefixes=5),
    "matching_pursuit": MatchingPursuit(d_sae=40, k=4, lr=1e-3),
}
