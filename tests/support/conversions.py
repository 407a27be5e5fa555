"""SAEs as training leaves them, to be converted, and what a converted one is compared by.

D d_in, F d_sae.
"""

from dataclasses import replace

import torch
from torch import Tensor

from saelight.ops.normalisation import Normalisation
from saelight.saes import SAE, AbsTopK, BatchTopK, Gated, JumpReLU, Matryoshka, ReLU, SAEConfig, TopK
from saelight.saes.provenance import Provenance

D, F, K = 16, 40, 4
UNITS = Normalisation("standard", 0.7, torch.linspace(-1, 1, D).double())
SOURCE = {"model": "EleutherAI/pythia-70m", "hook": "gpt_neox.layers.3.mlp", "context": 128, "dataset": "some/text"}
"""As a harvest notes it."""

CONFIGS: dict[str, SAEConfig] = {
    "relu": ReLU(d_sae=F),
    "gated": Gated(d_sae=F),
    "jump_relu": JumpReLU(d_sae=F),
    "jump_relu_tanh": JumpReLU(d_sae=F, penalty="tanh"),
    "topk": TopK(d_sae=F, k=K),
    "topk_unit": TopK(d_sae=F, k=K, decoder="unit"),
    "abs_topk": AbsTopK(d_sae=F, k=K),
    "batch_topk": BatchTopK(d_sae=F, k=K),
    "matryoshka_topk": Matryoshka(d_sae=F, base=TopK(k=K)),
    "matryoshka_batch_topk": Matryoshka(d_sae=F, base=BatchTopK(k=K)),
    "matryoshka_random": Matryoshka(d_sae=F, base=BatchTopK(k=K), random_prefixes=4),
    "matryoshka_relu": Matryoshka(d_sae=F, base=ReLU()),
    "matryoshka_jump_relu": Matryoshka(d_sae=F, base=JumpReLU()),
}
"""Every variant that some other library has, free and unit rows."""


@torch.no_grad()
def trained(config: SAEConfig, d_out: int | None = None, layer: int = 3) -> SAE:
    """An SAE trained on normalised rows, as `saelight.load` gives it, in the model's own units, with its provenance: no bias
    is 0, encoder and decoder are apart, free rows have norms of their own."""
    sae = config.build(D, seed=1, d_out=d_out)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sae.named_parameters():
        if name == "log_threshold":
            parameter.copy_((0.1 + 0.4 * torch.rand(parameter.shape, generator=generator)).log())
        else:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    if not sae.unit_decoder:
        sae.W_dec.mul_(0.5 + torch.rand(len(sae.W_dec), 1, generator=generator))
    sae.constrain_weights()
    if hasattr(sae, "threshold_updates"):
        sae.threshold.fill_(0.4)
    sae.fold_for_use(UNITS, Normalisation("standard", 1.3, torch.linspace(0, 1, d_out).double()) if d_out else None)
    hook = SOURCE["hook"].replace("3", str(layer))
    source, target = SOURCE | {"hook": f"{hook}.input" if d_out else hook}, SOURCE | {"hook": hook} if d_out else None
    sae.provenance = Provenance(name="a", seed=1, source=source, target_source=target, training={"state": "finished"})
    return sae.eval().requires_grad_(False)


def with_skip(config: SAEConfig) -> SAEConfig:
    """A transcoder's with a skip path."""
    return replace(config, skip=True)


def rows(n: int = 64) -> Tensor:
    """Activations (n, D) with a mean."""
    return 0.3 + torch.randn(n, D, generator=torch.Generator().manual_seed(2))


def same(left: Tensor, right: Tensor, tolerance: float = 1e-5) -> bool:
    """Equal to 1e-5 of the largest."""
    return bool((left - right).abs().max() <= tolerance * left.abs().max())


def same_sae(sae: SAE, encode, reconstruct, x: Tensor) -> None:
    """Assert that another SAE has the latents of this one, times the norms of its decoder's rows where it has folded them,
    and its reconstructions."""
    f_BF, other_BF = sae.encode(x), encode(x)
    assert 0.02 < (f_BF != 0).double().mean() < 0.8  # there is something to tell apart
    norms_F = sae.W_dec.norm(dim=1)
    assert same(f_BF, other_BF) or same(f_BF * norms_F, other_BF)
    assert same(sae(x), reconstruct(x))
