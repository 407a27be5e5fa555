"""dictionary_learning: its trainers' own `update`, called as `trainSAE` calls it.

Each trainer brings its Adam, warm-up schedule, clipping or none, decoder constraint and firing counters; for speed, its
defaults throughout. The TopK kinds set b_dec to the geometric median of the first batch, which makes a first call dear.
`trainSAE` turns its autocast off on a CPU; the bf16 entries do what it does on a GPU: batches cast to bfloat16, the whole
update under autocast. (The Matryoshka trainer's b_dec then stays bfloat16, as it does there.)
"""

from itertools import count
from typing import Any

import torch
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.gdm import GatedSAETrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.standard import StandardTrainer
from dictionary_learning.trainers.top_k import TopKTrainer
from dictionary_learning.trainers.trainer import SAETrainer
from torch import nn

from benchmarks.peers.learning import Learner, Task
from benchmarks.peers.training import MATRYOSHKA_SHARES, Gate, Training, autocast

KINDS = {
    "relu": StandardTrainer,
    "jump_relu": JumpReluTrainer,
    "gated": GatedSAETrainer,
    "topk": TopKTrainer,
    "batch_topk": BatchTopKTrainer,
    "matryoshka": MatryoshkaBatchTopKTrainer,
}
STEPS = 100_000
"""The schedules' horizon: far beyond any measurement."""


def build(variant: str, precision: str, d_in: int, d_sae: int, k: int, seed: int, device: str = "cpu") -> Training:
    trainer = _trainer(variant, d_in, d_sae, k, seed, steps=STEPS, device=device)
    steps = count()

    def step(x_BD: torch.Tensor) -> None:
        if precision == "fp32":
            trainer.update(next(steps), x_BD)
        else:
            with autocast(device):
                trainer.update(next(steps), x_BD.bfloat16())

    return Training(trainer.ae, step, _gate(variant, trainer.ae))


def learner(task: Task, sample_ND: torch.Tensor) -> Learner:
    """As `trainSAE(normalize_activations=True)` and its demo train: rows scaled to E‖x‖² = 1, the rate warmed up, constant
    and in the last fifth falling to 0.

    Its horizons are for 100,000 steps and more, some of them longer than a short run (it refuses those, or never sets its
    threshold): the warm-up takes a twentieth of the run instead of 1000 steps, the penalty's a tenth instead of 2000, and
    the threshold is averaged over the last fifth at 0.99 instead of from step 1000 on at 0.999. JumpReLU aims at its L0
    by its own quadratic penalty.
    """
    settings = {"warmup_steps": task.steps // 20, "decay_start": task.steps * 4 // 5, "lr": task.lr, "device": "cpu"}
    if task.variant in ("relu", "gated", "jump_relu"):
        settings["sparsity_warmup_steps"] = task.steps // 10
    else:
        settings |= {"threshold_start_step": task.steps * 4 // 5, "threshold_beta": 0.99}
    if task.coefficient is not None:
        settings["l1_penalty"] = task.coefficient
    trainer = _trainer(task.variant, task.d_in, task.d_sae, task.l0, task.seed, steps=task.steps, **settings)
    norm, steps = sample_ND.square().sum(1).mean().sqrt().item(), count()

    def inference() -> nn.Module:
        trainer.ae.scale_biases(norm)
        return trainer.ae

    return Learner(lambda x_BD: trainer.update(next(steps), x_BD / norm), inference)


def _trainer(variant: str, d_in: int, d_sae: int, k: int, seed: int, **settings: Any) -> SAETrainer:
    if variant in ("topk", "batch_topk", "matryoshka"):
        settings["k"] = k
    if variant == "matryoshka":
        settings["group_fractions"] = list(MATRYOSHKA_SHARES)
    if variant == "jump_relu":
        settings["target_l0"] = float(k)
    torch.manual_seed(seed)  # the JumpReLU trainer does not seed
    return KINDS[variant](activation_dim=d_in, dict_size=d_sae, layer=0, lm_name="none", seed=seed, **settings)


def _gate(variant: str, sae: nn.Module) -> Gate | None:
    match variant:
        case "relu":
            return Gate(lambda x_BD: sae.encoder(x_BD - sae.bias), sae.encoder.bias)
        case "gated":
            return Gate(lambda x_BD: sae.encoder(x_BD - sae.decoder_bias) + sae.gate_bias, sae.gate_bias)
        case "jump_relu":
            return Gate(lambda x_BD: x_BD @ sae.W_enc + sae.b_enc, sae.b_enc, lambda: sae.threshold)
    return None
