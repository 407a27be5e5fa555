"""The logits that latents promote and suppress, straight through a causal language model's unembedding.

Shapes: F d_sae, D width of the model, V vocabulary, T tokens kept.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from saelight.data.harvest import documents
from saelight.errors import one_line

_BLOCK = 1 << 23
"""Logits at a time: 32 MB."""
_CAUSAL = ("ForCausalLM", "LMHeadModel")


class Unembedding(NamedTuple):
    """W_U with the final norm's weights folded in."""

    W_VD: Tensor


class Effects(NamedTuple):
    """The T tokens whose logits one unit of a latent raises most, or lowers most, and by how much, the norm's division left
    out."""

    ids_FT: np.ndarray
    logits_FT: np.ndarray


@functools.lru_cache(maxsize=1)
def unembedding(model: str) -> Unembedding | str:
    """Of a model on this machine (`{package:NAME}` being a package's folder); a text that says why there is none."""
    try:
        import transformers
    except ImportError:
        return "pip install 'saelight[harvest]' for transformers"
    try:
        path, offline = documents.expand(model), {"local_files_only": True, "trust_remote_code": False}
        config = transformers.AutoConfig.from_pretrained(path, **offline)
        kind = next(iter(config.architectures or ["no model"]))
        if not kind.endswith(_CAUSAL):
            return f"{kind} predicts no next token"
        network = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **offline).eval()
    except Exception as error:  # the hub's, transformers' and the formats' own are of many kinds
        return one_line(error)
    return folded(network)


@torch.inference_mode()
def folded(network: Any) -> Unembedding:
    """W_U (V, D) times the weights of the norm before it; of a LayerNorm, which takes off the mean, its rows' mean too.

    As TransformerLens folds them, and so as Neuronpedia's logits are.
    """
    W_VD = network.get_output_embeddings().weight
    norms = [child for child in network.base_model.children() if "norm" in type(child).__name__.lower()]
    if not norms:
        return Unembedding(W_VD.clone())
    # Alternating ±1 have mean 0 and norm √D: whatever the norm's parametrisation, what it makes of them is its weights.
    signs_D = torch.ones(W_VD.shape[1])
    signs_D[1::2] = -1
    W_VD = W_VD * ((norms[-1](signs_D[None, None]) - norms[-1](-signs_D[None, None])).flatten() / 2 * signs_D)
    return Unembedding(W_VD - W_VD.mean(1, keepdim=True) if isinstance(norms[-1], nn.LayerNorm) else W_VD)


@torch.inference_mode()
def effects(W_dec_FD: Tensor, unembedded: Unembedding, n: int) -> tuple[Effects, Effects]:
    """What each decoder row promotes and what it suppresses, the strongest n tokens first (n at most V)."""
    V = len(unembedded.W_VD)
    both: list[list[Effects]] = [[], []]
    for rows in W_dec_FD.float().split(max(1, _BLOCK // V)):
        logits = rows @ unembedded.W_VD.T
        for found, largest in zip(both, (True, False), strict=True):
            best = logits.topk(min(n, V), dim=1, largest=largest)
            found.append(Effects(best.indices.int().numpy(), best.values.numpy()))
    promoted, suppressed = (Effects(*map(np.concatenate, zip(*found, strict=True))) for found in both)
    return promoted, suppressed
