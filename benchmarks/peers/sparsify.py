"""sparsify: its `Trainer` needs a language model and a token data set, so that one step of its `fit` is written out here.

What of `Trainer.fit` and of its forward hook is kept, in its order and by its own functions: b_dec from the first batch's
mean, unit decoder rows, the batch's variance, forward, firing mask, the loss read back, backward, gradients made
orthogonal to the decoder rows, schedule-free signed descent (the default optimizer at the default learning rate), firing
counters. AuxK, Multi-TopK and accumulation are off by default. Left out, in its favour: the clone of the batch and the
mask over excluded tokens. `fit` also asks for "high" precision of float32 products, which changes none on a CPU, and on a
CPU it decodes by `embedding_bag`: its faster kernels are Triton's and need a GPU.
"""

import os
from collections.abc import Callable
from contextlib import nullcontext

import torch
from schedulefree import ScheduleFreeWrapper

from benchmarks.peers.learning import Learner, Task
from benchmarks.peers.training import Training, autocast

if not torch.cuda.is_available():
    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")  # read when the library is imported

from sparsify import SparseCoder, SparseCoderConfig
from sparsify.sign_sgd import SignSGD

KINDS = {"topk": SparseCoder}


def build(variant: str, precision: str, d_in: int, d_sae: int, k: int, seed: int, device: str = "cpu") -> Training:
    sae, _, step = _training(variant, d_in, d_sae, k, seed, device, bf16=precision == "bf16")
    return Training(sae, step)


def learner(task: Task, sample_ND: torch.Tensor) -> Learner:
    """By its default optimizer, which needs no schedule. Rows are scaled to an expected norm of √D: the library scales
    none, and its signed steps are of one length for weights of the latents and biases of the rows alike."""
    sae, optimizer, step = _training(task.variant, task.d_in, task.d_sae, task.l0, task.seed, lr=task.lr)
    scale = task.d_in**0.5 / sample_ND.norm(dim=1).mean().item()

    def inference() -> Trained:
        optimizer.eval()  # the averaged weights, as it saves them
        return Trained(sae.eval(), scale)

    return Learner(lambda x_BD: step(x_BD * scale), inference)


class Trained:
    """Its inference form, with all latents: selected by ReLU and TopK."""

    def __init__(self, sae: SparseCoder, scale: float) -> None:
        self.sae, self.scale = sae, scale

    def encode(self, x_BD: torch.Tensor) -> torch.Tensor:
        values_BK, latents_BK, _ = self.sae.encode(x_BD * self.scale)
        return values_BK.new_zeros(len(x_BD), self.sae.num_latents).scatter_(1, latents_BK, values_BK)

    def decode(self, f_BF: torch.Tensor) -> torch.Tensor:
        return (f_BF @ self.sae.W_dec + self.sae.b_dec) / self.scale


def _training(
    variant: str,
    d_in: int,
    d_sae: int,
    k: int,
    seed: int,
    device: str = "cpu",
    bf16: bool = False,
    lr: float | None = None,
) -> tuple[SparseCoder, ScheduleFreeWrapper, Callable[[torch.Tensor], None]]:
    torch.manual_seed(seed)
    sae = KINDS[variant](d_in, SparseCoderConfig(num_latents=d_sae, k=k), device=device, dtype=torch.float32)
    lr = lr or 5e-3 / (d_sae / 2**14) ** 0.5
    optimizer = ScheduleFreeWrapper(SignSGD([{"params": sae.parameters(), "lr": lr}]), momentum=0.95)
    optimizer.train()
    tokens_since_fired = torch.zeros(d_sae, dtype=torch.long, device=device)
    fired = torch.zeros(d_sae, dtype=torch.bool, device=device)
    started = False

    def step(x_BD: torch.Tensor) -> None:
        nonlocal started
        if not started:
            sae.b_dec.data = x_BD.mean(0)
            started = True
        sae.set_decoder_norm_to_unit_norm()
        variance = (x_BD - x_BD.mean(0)).pow(2).sum()
        # The forward pass alone, as the decorator of its `forward` does on a GPU.
        with autocast(device) if bf16 else nullcontext():
            out = sae(x=x_BD, y=x_BD, dead_mask=None, total_variance=variance)
        fired[out.latent_indices.flatten()] = True
        float(out.fvu.detach())
        (out.fvu + 0.0 * out.auxk_loss + out.multi_topk_fvu / 8).backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        tokens_since_fired.add_(len(x_BD))
        tokens_since_fired[fired] = 0
        fired.zero_()

    return sae, optimizer, step
