"""A model that a function of the user's own makes."""

import importlib
import re
from typing import Any

from torch import nn

from saelight.data.harvest import tokenizing
from saelight.data.harvest.model_settings import LoadedModel, ModelSettings
from saelight.errors import UserError, did_you_mean, one_line

_PATH = re.compile(r"(?P<module>[A-Za-z_][\w.]*):(?P<function>[A-Za-z_]\w*)")
_ELSEWHERE = ("revision", "attention", "device_map", "trust_remote_code")
"""Settings that a function does not hear of."""


def is_path(model: str) -> bool:
    """Whether a model's name is the import path of a function."""
    return _PATH.fullmatch(model) is not None


def load(path: str, settings: ModelSettings) -> LoadedModel:
    """The module that the function at MODULE:FUNCTION makes, in eval mode, and what it gives beside it.

    Raises:
        UserError: There is no such function, it fails, or it makes something else.
    """
    for name in _ELSEWHERE:
        if getattr(settings, name):
            raise UserError(f"`{name}` is not for {path}, which makes its model as it likes; drop `{name}`")
    network, beside = _made(path)
    is_tokenizer = hasattr(beside, "num_special_tokens_to_add")
    embeddings = getattr(network, "get_input_embeddings", None)
    return LoadedModel(
        path,
        network.eval(),
        tokenizing.prepared(beside, path) if is_tokenizer else None,
        image_transform=None if is_tokenizer else beside,
        vocabulary=getattr(embeddings(), "num_embeddings", None) if callable(embeddings) else None,
        lacks=f"{path} returns none",
    )


def _made(path: str) -> tuple[nn.Module, Any]:
    match = _PATH.fullmatch(path)
    assert match is not None
    try:
        module = importlib.import_module(match["module"])
    except Exception as error:  # whatever a user's code raises
        raise UserError(
            f"cannot import {match['module']} for model {path} ({one_line(error)}); is it on PYTHONPATH?"
        ) from error
    function = getattr(module, match["function"], None)
    if not callable(function):
        functions = [name for name, value in vars(module).items() if callable(value)]
        near = did_you_mean(match["function"], functions) or "; name one that it has"
        raise UserError(f"module {match['module']} has no function {match['function']!r} to make a model{near}")
    try:
        made = function()
    except Exception as error:  # as above
        raise UserError(f"{path}() failed: {one_line(error)}; mend it") from error
    network, beside = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(network, nn.Module) or not (beside is None or callable(beside)):
        kinds = f"{type(network).__name__} and {type(beside).__name__}"
        raise UserError(
            f"{path}() returned {kinds}; return a torch.nn.Module, with its tokenizer or image transform, or None"
        )
    return network, beside
