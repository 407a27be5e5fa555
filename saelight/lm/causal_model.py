"""A causal language model with its tokenizer, and windows of text for it.

Shapes: B windows, T tokens.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from saelight.data.harvest.corpus import Corpus
from saelight.data.harvest.loading import load
from saelight.data.harvest.model_settings import LoadedModel, ModelSettings
from saelight.data.harvest.onednn_linear import use_onednn
from saelight.data.harvest.text_windows import WindowCutter, WindowSettings
from saelight.errors import UserError

_STRUCTURAL = ("bos", "eos", "pad", "sep", "decoder_start")


PROBED = 32
"""Tokens of the window that a model is tried on."""


class CausalModel(NamedTuple):
    """What text is judged by."""

    loaded: LoadedModel
    special: list[int]
    """Ids of the tokens that structure text, as SAELens takes them: BOS, EOS, PAD, SEP and the decoder's start."""

    @property
    def network(self) -> nn.Module:
        """The model."""
        return self.loaded.network

    @property
    def device(self) -> torch.device:
        """Where it takes its inputs."""
        return next((parameter.device for parameter in self.network.parameters()), torch.device("cpu"))


def load_causal(settings: ModelSettings) -> CausalModel:
    """A causal language model, in eval mode.

    Raises:
        UserError: There is none, it is no causal language model, or the tokenizer beside it is another model's.
    """
    # Whatever a model draws when it is built is no business of a training that is going on.
    with torch.random.fork_rng(devices=[]):
        loaded = load(settings, with_head=True)
    name, tokens, tokenizer = loaded.name, loaded.vocabulary, loaded.tokenizer
    if tokenizer is not None and tokens is not None and len(tokenizer) > tokens:
        raise UserError(
            f"model {name!r} knows {tokens:,} tokens and its tokenizer {len(tokenizer):,}: they do not belong together; "
            "give the model's own tokenizer"
        )
    if (config := getattr(loaded.network, "config", None)) is not None:
        config.use_cache = False
    ids = [getattr(tokenizer, f"{kind}_token_id", None) for kind in _STRUCTURAL]
    loaded.network.requires_grad_(False)
    use_onednn(loaded.network)
    return CausalModel(loaded, sorted({id_ for id_ in ids if id_ is not None}))


def window_settings(source: Mapping[str, Any], context: int | None) -> WindowSettings:
    """How to cut text as a harvest did, by what it noted of itself. Packed documents that did not see each other are not
    packed here, which gives each the same context.

    Args:
        context: Tokens of a window. None: the harvest's, or 128.
    """
    noted = source.get("context", source.get("context_size"))
    packed = source.get("packed") is True and source.get("attend_across") is True
    bos = source.get("bos")
    return WindowSettings(
        context=context or (noted if isinstance(noted, int) and noted > 1 else WindowSettings.context),
        packed=packed,
        attend_across=packed,
        bos=bos if isinstance(bos, bool) else None,
        special_in_text=source.get("special_in_text") is True,
    )


def windows_of(corpus: Corpus, model: CausalModel, settings: WindowSettings, max_tokens: int) -> list[list[int]]:
    """The token ids of the documents' windows, cut as harvests cut them, until there are `max_tokens` or more.

    Raises:
        UserError: There is less text than one window, or the model has no room for such windows.
    """
    context = settings.context
    found: list[list[int]] = []
    tokens = 0
    for window in WindowCutter(settings, model.loaded)(corpus):
        found.append(window.ids)
        tokens += len(window.ids)
        if tokens >= max_tokens:
            break
    if tokens < context or max(map(len, found)) < 2:
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
