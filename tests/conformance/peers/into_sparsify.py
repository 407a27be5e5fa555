"""Weights copied from saelight's TopK SAEs and transcoders into sparsify's.

B batch, D d_in, F d_sae.
"""

import torch
from torch import Tensor, nn

from saelight.saes import SAE
from tests.conformance.peers.support import parameter_gradients, peer

sparsify = peer("sparsify")
_OURS = {"encoder.weight": "W_enc", "encoder.bias": "b_enc"}


def coder(sae: SAE) -> nn.Module:
    """The same SAE as sparsify's, in its precision and with its weights."""
    config = sparsify.SparseCoderConfig(
        num_latents=sae.d_sae, k=sae.config.k, transcode=sae.is_transcoder, skip_connection=sae.W_skip is not None
    )
    module, left = sparsify.SparseCoder(sae.d_in, config, dtype=sae.b_dec.dtype), dict(sae.named_parameters())
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            value = left.pop(_OURS.get(name, name))
            parameter.copy_(value.T if name in ("encoder.weight", "W_skip") else value)
    assert not left
    return module


def latents(module: nn.Module, x_BD: Tensor) -> Tensor:
    """Its kept values and indices as a dense (B, F)."""
    encoded = module.encode(x_BD)
    return torch.zeros(len(x_BD), module.num_latents, dtype=x_BD.dtype).scatter(1, encoded.top_indices, encoded.top_acts)


def gradients(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """The gradient of each parameter, under saelight's names and in its shapes."""
    found = parameter_gradients(loss, module)
    return {_OURS.get(n, n): g.T if n in ("encoder.weight", "W_skip") else g for n, g in found.items()}
