"""SAELens: its `SAETrainer.step`, called as its `fit` calls it.

For speed, its defaults throughout: Adam, constant learning rate, clipping at norm 1, no constraint on the decoder (the
TopK kinds divide by its norms instead), firing counters. Left out of `fit`: logging, progress bar, checkpoints.
"topk_sparse" is TopK as it is fastest in float32: with its sparse activations, an option. Their backward pass fails on a CPU
(no 'aten::view' for 'SparseCPU') unless the rescaling by decoder norms is off too.
"""

import tempfile
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes import (
    SAE,
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
from torch import Tensor, nn

from benchmarks.peers.learning import Learner, Task
from benchmarks.peers.training import MATRYOSHKA_SHARES, Gate, Training

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
    settings = {}
    if variant == "topk_sparse":
        settings = {"use_sparse_activations": True, "rescale_acts_by_decoder_norm": False}
    # What has no default: the numbers only count samples and end `fit`, and lr_end matters to no constant rate.
    trainer_config = SAETrainerConfig(
        total_training_samples=10**9,
        train_batch_size_samples=4096,
        lr_end=3e-5,
        autocast=precision == "bf16",
        device=device,
    )
    trainer = _trainer(variant, d_in, d_sae, k, seed, trainer_config, **settings)
    return Training(trainer.sae, _step(trainer), _gate(variant, trainer.sae))


def learner(task: Task, sample_ND: Tensor) -> Learner:
    """As its tutorials train: rows scaled to an expected norm of √D, the rate constant and in the last fifth falling to 0,
    penalties warmed up over the first twentieth. The inference form is the one that it saves and loads itself.

    Its `dead_feature_window` of 1000 steps is longer than a short run, whose auxiliary loss would never start: a fifth of
    the run takes its place, but 100 steps at least.
    """
    settings = {"normalize_activations": "expected_average_only_in"}
    if task.coefficient is not None:
        penalty = "l0" if task.variant == "jump_relu" else "l1"
        settings |= {f"{penalty}_coefficient": task.coefficient, f"{penalty}_warm_up_steps": task.steps // 20}
    trainer_config = SAETrainerConfig(
        total_training_samples=task.steps * task.batch,
        train_batch_size_samples=task.batch,
        lr=task.lr,
        lr_end=task.lr,
        lr_decay_steps=task.steps // 5,
        dead_feature_window=min(1000, max(100, task.steps // 5)),
    )
    trainer = _trainer(task.variant, task.d_in, task.d_sae, task.l0, task.seed, trainer_config, **settings)
    scale = task.d_in**0.5 / sample_ND.norm(dim=1).mean().item()
    trainer.activation_scaler.scaling_factor = scale

    def inference() -> SAE:
        trainer.sae.fold_activation_norm_scaling_factor(scale)
        with tempfile.TemporaryDirectory() as folder:
            trainer.sae.save_inference_model(folder)
            return SAE.load_from_disk(folder)

    return Learner(_step(trainer), inference)


def _trainer(
    variant: str, d_in: int, d_sae: int, k: int, seed: int, config: SAETrainerConfig, **settings: Any
) -> SAETrainer:
    sae, sae_config = KINDS[variant]
    if "topk" in sae_config.architecture():
        settings["k"] = k
    if variant == "matryoshka":
        settings["matryoshka_widths"] = [*accumulate(int(share * d_sae) for share in MATRYOSHKA_SHARES[:-1]), d_sae]
    torch.manual_seed(seed)
    made = sae(sae_config(d_in=d_in, d_sae=d_sae, device=config.device, **settings))
    return SAETrainer(config, made, data_provider=iter(()))


def _step(trainer: SAETrainer) -> Callable[[Tensor], None]:
    def step(x_BD: Tensor) -> None:
        trainer.step(x_BD)
        trainer.n_training_steps += 1

    return step


def _gate(variant: str, sae: nn.Module) -> Gate | None:
    if variant not in ("relu", "jump_relu", "gated"):
        return None
    bias_F = sae.b_gate if variant == "gated" else sae.b_enc
    threshold = (lambda: sae.threshold) if variant == "jump_relu" else (lambda: 0.0)
    return Gate(lambda x_BD: sae.process_sae_in(x_BD) @ sae.W_enc + bias_F, bias_F, threshold)
