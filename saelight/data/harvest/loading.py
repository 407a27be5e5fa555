"""The model of some settings, and what turns documents into its inputs."""

from collections.abc import Sequence
from typing import Any

from saelight.data.harvest import own_model, pretrained
from saelight.data.harvest.documents import expand
from saelight.data.harvest.hooked import IMAGE_TOWERS, tower
from saelight.data.harvest.model_settings import LoadedModel, ModelSettings
from saelight.data.harvest.tokenizing import first_line, tokenizer_at
from saelight.errors import UserError


def load(settings: ModelSettings, hooks: Sequence[str] = (), *, with_head: bool = False) -> LoadedModel:
    """The model of the settings, on its device. Of a model of text and images, the hooks tell which it is to read.

    Args:
        with_head: Load it as a causal language model, which predicts the next token.

    Raises:
        UserError: There is no such model, it is none for text or images, or it brings code of its own that is not trusted.
    """
    import torch

    name = expand(settings.model)
    if own_model.is_path(name):
        loaded = own_model.load(name, settings)
    else:
        loaded = pretrained.load(name, settings, images=tower(hooks, IMAGE_TOWERS) is not None, with_head=with_head)
    if settings.tokenizer is not None and loaded.image_transform is None:
        loaded = loaded._replace(tokenizer=_named_tokenizer(settings))
    if loaded.positions is not None and any("decoder" in hook.split(".") for hook in hooks):
        loaded = loaded._replace(positions=loaded.positions - _is_encoder_decoder(loaded))  # the decoder's start token
    if settings.device_map is None:
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if settings.device == "auto" else settings.device
        try:
            loaded.network.to(torch.device(chosen))
        except (RuntimeError, AssertionError, ValueError) as error:  # of torch without it; of quantised models
            raise UserError(
                f"model {name!r} cannot go to device {chosen!r}: {first_line(error)}; `saelight devices` lists what is here"
            ) from error
    return loaded


def _named_tokenizer(settings: ModelSettings) -> Any:
    assert settings.tokenizer is not None
    name = expand(settings.tokenizer)
    try:
        return tokenizer_at(name, name, trust_remote_code=settings.trust_remote_code)
    except LookupError as error:
        raise UserError(f"cannot load tokenizer {name!r}: {error}; give a folder or a hub name") from error


def _is_encoder_decoder(loaded: LoadedModel) -> bool:
    return bool(getattr(getattr(loaded.network, "config", None), "is_encoder_decoder", False))
