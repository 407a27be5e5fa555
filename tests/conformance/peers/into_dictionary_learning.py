"""Weights copied from saelight's modules into dictionary_learning's.

B batch, D d_in, F d_sae.
"""

from typing import Any

import torch
from torch import Tensor, nn

from saelight.saes import SAE, BatchTopK, Gated, JumpReLU, ReLU, TopK
from tests.conformance.peers.support import parameter_gradients, peer, variant

dictionary_learning = peer("dictionary_learning")
_DICTIONARIES = {
    ReLU: ("dictionary", "AutoEncoder"),
    Gated: ("dictionary", "GatedAutoEncoder"),
    JumpReLU: ("dictionary", "JumpReluAutoEncoder"),
    TopK: ("trainers.top_k", "AutoEncoderTopK"),
    BatchTopK: ("trainers.batch_top_k", "BatchTopKSAE"),
}
_TRAINERS = {
    "StandardTrainer": "standard",
    "StandardTrainerAprilUpdate": "standard",
    "PAnnealTrainer": "p_anneal",
    "GatedSAETrainer": "gdm",
    "JumpReluTrainer": "jumprelu",
    "TopKTrainer": "top_k",
    "BatchTopKTrainer": "batch_top_k",
    "MatryoshkaBatchTopKTrainer": "matryoshka_batch_top_k",
}
_OURS = {
    "encoder.weight": "W_enc",
    "encoder.bias": "b_enc",
    "decoder.weight": "W_dec",
    "bias": "b_dec",
    "decoder.bias": "b_dec",
    "decoder_bias": "b_dec",
    "gate_bias": "b_gate",
    "mag_bias": "b_mag",
    "threshold": "log_threshold",
}
"""saelight's names for its parameters, where they differ."""


def filled(module: nn.Module, sae: SAE) -> nn.Module:
    """The module in the SAE's precision and with its weights: each parameter of either side finds its counterpart."""
    module, left = module.to(sae.b_dec.dtype), dict(sae.named_parameters())
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            value = left.pop(_OURS.get(name, name))
            parameter.copy_(value.exp() if name == "threshold" else value.T if name.endswith("coder.weight") else value)
    assert not left
    if variant(sae) is BatchTopK:
        module.threshold = sae.threshold.clone()
    return module


@torch.no_grad()
def without_b_dec_on_the_input(bias: nn.Parameter, sae: SAE) -> None:
    """Move b_dec's share into the encoder's bias, for a module that does not subtract it from x."""
    bias.sub_(sae.b_dec @ sae.W_enc)


def inference(sae: SAE) -> nn.Module:
    """The same SAE, as dictionary_learning runs it."""
    kind = variant(sae)
    file, name = _DICTIONARIES[kind]
    k = [sae.config.k] if kind in (TopK, BatchTopK) else []
    module = filled(getattr(peer(f"dictionary_learning.{file}"), name)(sae.d_in, sae.d_sae, *k), sae)
    if kind is JumpReLU:
        module.apply_b_dec_to_input = True
    return module


def trainer(name: str, sae: SAE, **settings: Any) -> Any:
    """Its trainer of that name, past all warm-ups, with the SAE's weights in the dictionary that it trains."""
    kind = getattr(peer(f"dictionary_learning.trainers.{_TRAINERS[name]}"), name)
    if not name.startswith(("TopK", "BatchTopK", "Matryoshka")):
        settings["sparsity_warmup_steps"] = None
    made = kind(
        steps=100,
        activation_dim=sae.d_in,
        dict_size=sae.d_sae,
        layer=0,
        lm_name="",
        device="cpu",
        **{"warmup_steps": 0, **settings},
    )
    filled(made.ae, sae)
    return made


def gradients(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """The gradient of each parameter, under saelight's names and in its shapes."""
    found = {
        _OURS.get(name, name): gradient.T if name.endswith("coder.weight") else gradient
        for name, gradient in parameter_gradients(loss, module).items()
    }
    if "log_threshold" in found:
        # It trains θ itself, saelight log θ: dL/d(log θ) = θ dL/dθ.
        found["log_threshold"] = found["log_threshold"] * module.threshold.detach()
    return found
