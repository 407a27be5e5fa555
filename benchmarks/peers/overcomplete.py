"""overcomplete: its own `train_sae` on a data loader of one batch, silent (`monitoring=0`), which is its fastest way.

The optimizer and the criterion are the user's to choose: Adam at 5e-4 and, for the TopK kinds, the plain squared error
are those of its README; ReLU and JumpReLU get its `mse_l1`, the library having no penalty on L0. It clips at norm 1 by
default, normalises the dictionary in each forward pass and tracks dead codes within an epoch, here a batch.
The bf16 entries run all of it under autocast: its `train_sae_amp` takes up to 30 % longer on a CPU, for a gradient scaler
that bfloat16 does not need.

The package's own __init__ imports its vision models and plots, and with them torchvision, timm, opencv and matplotlib.
Its SAEs need none of those, so that the package is entered here without running that file; nothing is replaced.
"""

import sys
from importlib.util import find_spec, module_from_spec

import torch

from benchmarks.peers.training import Gate, Training, autocast

if "overcomplete" not in sys.modules:
    sys.modules["overcomplete"] = module_from_spec(find_spec("overcomplete"))

from overcomplete.sae import SAE, BatchTopKSAE, JumpSAE, TopKSAE, mse_l1, train_sae

KINDS = {"relu": SAE, "jump_relu": JumpSAE, "topk": TopKSAE, "batch_topk": BatchTopKSAE}


def squared_error(x_BD, reconstruction_BD, pre_BF, latents_BF, dictionary_FD):
    return (x_BD - reconstruction_BD).square().mean()


def build(variant: str, precision: str, d_in: int, d_sae: int, k: int, seed: int, device: str = "cpu") -> Training:
    fixed_count = variant in ("topk", "batch_topk")
    torch.manual_seed(seed)
    sae = KINDS[variant](d_in, d_sae, device=device, **({"top_k": k} if fixed_count else {}))
    optimizer = torch.optim.Adam(sae.parameters(), lr=5e-4)
    criterion = squared_error if fixed_count else mse_l1

    def step(x_BD: torch.Tensor) -> None:
        if variant == "batch_topk":
            sae.top_k = k * len(x_BD)  # it counts over the whole batch
        if precision == "fp32":
            train_sae(sae, [x_BD], criterion, optimizer, nb_epochs=1, monitoring=0)
        else:
            with autocast(device):
                train_sae(sae, [x_BD], criterion, optimizer, nb_epochs=1, monitoring=0)

    if fixed_count:
        return Training(sae, step)
    threshold = (lambda: sae.thresholds.exp()) if variant == "jump_relu" else (lambda: 0.0)
    return Training(sae, step, Gate(lambda x_BD: sae.encode(x_BD)[0], sae.encoder.final_block[0].bias, threshold))
