"""A causal language model with its tokenizer, and windows of text for it.

Shapes: B windows, T tokens.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from saelight.data.harvest import documents
from saelight.data.harvest.harvester import _windows
from saelight.data.harvest.loading import load
from saelight.data.harvest.onednn_linear import use_onednn
from saelight.errors import UserError, one_line

_SPECIAL = ("bos", "eos", "pad", "sep", "decoder_start")


class CausalModel(NamedTuple):
    """What text is judged by."""

    network: nn.Module
    tokenizer: Any
    special: list[int]
    """Ids of the tokens that structure text, as SAELens takes them: BOS, EOS, PAD, SEP and the decoder's start."""
    vocabulary: int
    """Tokens that the model tells apart."""


def load_causal(model: str, context: int, dtype: str, device: torch.device) -> CausalModel:
    """A model from a folder or the hub, in eval mode.

    Raises:
        UserError: There is none, it is no causal language model, or the tokenizer beside it is another model's.
    """
    # Whatever a model draws when it is built is no business of a training that is going on.
    with torch.random.fork_rng(devices=[]):
        tokenizer, _ = load(documents.expand(model), context, dtype)
        network = _with_head(documents.expand(model), dtype)
    network.config.use_cache = False
    vocabulary = network.get_input_embeddings().num_embeddings
    if len(tokenizer) > vocabulary:
        raise UserError(
            f"model {model!r} knows {vocabulary:,} tokens and its tokenizer {len(tokenizer):,}: they do not belong "
            "together; give a folder with its own"
        )
    ids = [getattr(tokenizer, f"{name}_token_id", None) for name in _SPECIAL]
    network.requires_grad_(False).to(device)
    use_onednn(network)
    return CausalModel(network, tokenizer, sorted({id_ for id_ in ids if id_ is not None}), vocabulary)


def _with_head(model: str, dtype: str) -> Any:
    import transformers

    config = transformers.AutoConfig.from_pretrained(model, trust_remote_code=False)
    if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(f"model {model!r} ({config.model_type}) predicts no next token: give a causal language model")
    try:
        network, found = transformers.AutoModelForCausalLM.from_pretrained(
            model, dtype=getattr(torch, dtype), trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # transformers' and the formats' own are of many kinds
        raise UserError(f"cannot load model {model!r} ({one_line(error)}): give a causal language model") from error
    if missing := sorted(found["missing_keys"]):
        raise UserError(f"model {model!r} has no weights of {missing[0]}: give a causal language model with its head")
    return network.eval()


def windows_of(
    texts: Iterable[str], tokenizer: Any, context: int, special_in_text: bool, max_tokens: int
) -> list[list[int]]:
    """The token ids of the texts' windows, cut as harvests cut them, until there are `max_tokens` or more.

    Raises:
        UserError: There is less text than one window.
    """
    found: list[list[int]] = []
    tokens = 0
    for window in _windows(texts, tokenizer, context, drop_special=False, special_in_text=special_in_text):
        found.append(window.ids)
        tokens += len(window.ids)
        if tokens >= max_tokens:
            break
    if tokens < context:
        raise UserError(f"the text has {tokens} tokens, less than a window of {context}: give more text, or lower context")
    return found


def batches(windows: list[list[int]], size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Windows, `size` at a time: ids (B, T), padded at the end, and what of them is no padding (B, T) bool."""
    for start in range(0, len(windows), size):
        group = windows[start : start + size]
        ids_BT = torch.zeros(len(group), max(map(len, group)), dtype=torch.int64)
        real_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
        for b, ids in enumerate(group):
            ids_BT[b, : len(ids)] = torch.tensor(ids)
            real_BT[b, : len(ids)] = True
        yield ids_BT.to(device), real_BT.to(device)
