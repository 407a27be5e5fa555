"""dictionary_learning: its trainers' own `update`, called as `trainSAE` calls it.

Each trainer brings its Adam, warm-up schedule, clipping or none, decoder constraint and firing counters; its defaults
throughout. The TopK kinds set b_dec to the geometric median of the first batch, which makes a first call dear.
`trainSAE` turns its autocast off on a CPU; the bf16 entries do what it does on a GPU: batches cast to bfloat16, the whole
update under autocast. (The Matryoshka trainer's b_dec then stays bfloat16, as it does there.)
"""

from itertools import count

import torch
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.gdm import GatedSAETrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.standard import StandardTrainer
from dictionary_learning.trainers.top_k import TopKTrainer
from torch import nn

from benchmarks.speed.peers.training import MATRYOSHKA_SHARES, Gate, Training, autocast

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
    settings = {"k": k} if variant in ("topk", "batch_topk", "matryoshka") else {}
    if variant == "matryoshka":
        settings["group_fractions"] = list(MATRYOSHKA_SHARES)
    if variant == "jump_relu":
        settings["target_l0"] = float(k)
    torch.manual_seed(seed)  # the JumpReLU trainer does not seed
    trainer = KINDS[variant](
        steps=STEPS, activation_dim=d_in, dict_size=d_sae, layer=0, lm_name="none", seed=seed, device=device, **settings
    )
    steps = count()

    def step(x_BD: torch.Tensor) -> None:
        if precision == "fp32":
            trainer.update(next(steps), x_BD)
        else:
            with autocast(device):
                trainer.update(next(steps), x_BD.bfloat16())

    return Training(trainer.ae, step, _gate(variant, trainer.ae))


def _gate(variant: str, sae: nn.Module) -> Gate | None:
    match variant:
        case "relu":
            return Gate(lambda x_BD: sae.encoder(x_BD - sae.bias), sae.encoder.bias)
        case "gated":
            return Gate(lambda x_BD: sae.encoder(x_BD - sae.decoder_bias) + sae.gate_bias, sae.gate_bias)
        case "jump_relu":
            return Gate(lambda x_BD: x_BD @ sae.W_enc + sae.b_enc, sae.b_enc, lambda: sae.threshold)
    return None
