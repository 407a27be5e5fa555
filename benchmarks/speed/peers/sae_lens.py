"""SAELens: its `SAETrainer.step`, called as its `fit` calls it.

Its defaults throughout: Adam, constant learning rate, clipping at norm 1, no constraint on the decoder (the TopK kinds
divide by its norms instead), firing counters. Left out of `fit`: logging, progress bar, checkpoints.
"topk_sparse" is TopK as it is fastest in float32: with its sparse activations, an option. Their backward pass fails on a CPU
(no 'aten::view' for 'SparseCPU') unless the rescaling by decoder norms is off too.
"""

from itertools import accumulate

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    GatedTrainingSAE,
    GatedTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.training.sae_trainer import SAETrainer
from torch import nn

from benchmarks.speed.peers.training import MATRYOSHKA_SHARES, Gate, Training

KINDS = {
    "relu": (StandardTrainingSAE, StandardTrainingSAEConfig),
    "jump_relu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig),
    "gated": (GatedTrainingSAE, GatedTrainingSAEConfig),
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
    "topk_sparse": (TopKTrainingSAE, TopKTrainingSAEConfig),
    "batch_topk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    "matryoshka": (MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig),
}


def build(variant: str, precision: str, d_in: int, d_sae: int, k: int, seed: int, device: str = "cpu") -> Training:
    kind, config = KINDS[variant]
    settings = {"k": k} if "topk" in config.architecture() else {}
    if variant == "topk_sparse":
        settings |= {"use_sparse_activations": True, "rescale_acts_by_decoder_norm": False}
    if variant == "matryoshka":
        settings["matryoshka_widths"] = [*accumulate(int(share * d_sae) for share in MATRYOSHKA_SHARES[:-1]), d_sae]
    torch.manual_seed(seed)
    sae = kind(config(d_in=d_in, d_sae=d_sae, device=device, **settings))
    # What has no default: the numbers only count samples and end `fit`, and lr_end matters to no constant rate.
    trainer_config = SAETrainerConfig(
        total_training_samples=10**9,
        train_batch_size_samples=4096,
        lr_end=3e-5,
        autocast=precision == "bf16",
        device=device,
    )
    trainer = SAETrainer(trainer_config, sae, data_provider=iter(()))

    def step(x_BD: torch.Tensor) -> None:
        trainer.step(x_BD)
        trainer.n_training_steps += 1

    return Training(sae, step, _gate(variant, sae))


def _gate(variant: str, sae: nn.Module) -> Gate | None:
    if variant not in ("relu", "jump_relu", "gated"):
        return None
    bias_F = sae.b_gate if variant == "gated" else sae.b_enc
    threshold = (lambda: sae.threshold) if variant == "jump_relu" else (lambda: 0.0)
    return Gate(lambda x_BD: sae.process_sae_in(x_BD) @ sae.W_enc + bias_F, bias_F, threshold)
