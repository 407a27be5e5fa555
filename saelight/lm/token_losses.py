"""What a language model loses, token by token, in float32.

Shapes: B windows, T tokens, V vocabulary.
"""

import torch
from torch import Tensor


def log_probabilities(logits_BTV: Tensor) -> Tensor:
    """The model's log probabilities of the next token: (B, T, V) float32."""
    return torch.log_softmax(logits_BTV.float(), dim=-1)


def cross_entropy(log_probs_BTV: Tensor, ids_BT: Tensor) -> Tensor:
    """-log p of the token that follows each position but the last, in nats: (B, T - 1)."""
    return -log_probs_BTV[:, :-1].gather(-1, ids_BT[:, 1:, None])[..., 0]


def kl_divergence(log_p_BTV: Tensor, log_q_BTV: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p (log p - log q) at each position, in nats: (B, T). What p excludes counts nothing."""
    p_BTV = log_p_BTV.exp()
    terms_BTV = (log_p_BTV - log_q_BTV).mul_(p_BTV)
    return terms_BTV.masked_fill_(p_BTV == 0, 0).sum(-1)
