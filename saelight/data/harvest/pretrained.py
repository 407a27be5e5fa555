"""A transformers model from a folder, the hub or a GGUF file, without running code that comes with it, unless told to."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from saelight.data.harvest.model_settings import LoadedModel, ModelSettings
from saelight.data.harvest.tokenizing import first_line, tokenizer_at
from saelight.errors import UserError

_GGUF = ".gguf"
_PATHS = (".", "/", "~")
"""What no name on the hub begins with."""
_IMAGES = ("image_size", "patch_size", "num_channels")
"""What configurations of models of images have."""


def load(model: str, settings: ModelSettings, images: bool) -> LoadedModel:
    """The model of that name, and its tokenizer, or its image processor where it reads images or `images` are wanted.

    Raises:
        UserError: There is no such model, it reads neither text nor images, or brings code of its own that is not trusted.
    """
    try:
        import transformers
    except ImportError:
        raise UserError("harvest runs models with transformers; pip install 'saelight[harvest]'") from None

    transform = None
    try:
        name, where = _address(model, settings.revision)
        where["trust_remote_code"] = settings.trust_remote_code
        config = transformers.AutoConfig.from_pretrained(name, **where)
        text = config.get_text_config()
        vocabulary = getattr(text, "vocab_size", None)
        images = images or (vocabulary is None and any(hasattr(config, known) for known in _IMAGES))
        if vocabulary is None and not images:
            raise UserError(f"model {model!r} ({config.model_type}) reads neither text nor images; choose one that does")
        network = transformers.AutoModel.from_pretrained(name, **where, **_options(settings)).eval()
        if images:
            # Pillow's way, whatever else is installed: the pixels are then the same everywhere.
            transform = transformers.AutoImageProcessor.from_pretrained(name, backend="pil", **where)
    except UserError:
        raise
    except Exception as error:  # the hub's, transformers' and the formats' own are of many kinds
        line = first_line(error)
        own_code = "custom code" in line and not settings.trust_remote_code
        fix = "set trust_remote_code: true to run it" if own_code else "give a folder or a hub name"
        raise UserError(f"cannot load model {model!r}: {line}; {fix}") from error
    tokenizer, lacks = None, ""
    if not images and settings.tokenizer is None:
        try:
            tokenizer = tokenizer_at(name, model, **where)
        except LookupError as error:  # whoever brings token ids needs none
            lacks = str(error)
    return LoadedModel(model, network, tokenizer, transform, vocabulary, _positions(network, text), lacks)


def _options(settings: ModelSettings) -> dict[str, Any]:
    """How AutoModel is to make the model."""
    import torch

    options: dict[str, Any] = {"dtype": getattr(torch, settings.model_dtype)}
    if settings.attention is not None:
        options["attn_implementation"] = settings.attention
    if settings.device_map is not None:
        if find_spec("accelerate") is None:
            raise UserError("device_map takes accelerate; pip install 'saelight[accelerate]'")
        options["device_map"] = settings.device_map
    return options


def _address(model: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    """What from_pretrained is given: a folder or the hub's name, and which file of it and revision."""
    where: dict[str, Any] = {}
    if model.endswith(_GGUF):
        if find_spec("gguf") is None or find_spec("accelerate") is None:
            raise UserError(f"reading {model} takes gguf and accelerate; pip install 'saelight[gguf]'")
        on_hub = not Path(model).is_file()
        if on_hub and (model.startswith(_PATHS) or model.count("/") < 2):
            raise UserError(f"there is no file {model}; give one, or OWNER/NAME/FILE.gguf of the hub")
        parts = model.split("/", 2) if on_hub else model.rpartition("/")
        model, where["gguf_file"] = ("/".join(parts[:2]) if on_hub else parts[0] or "."), parts[-1]
    if not Path(model).is_dir():
        where["revision"] = revision
        _check_reach(model, where.get("gguf_file", "config.json"), revision)
    elif revision is not None:
        raise UserError(f"revision {revision!r} is of a model on the hub, and {model} is a folder; drop `revision`")
    return model, where


def _check_reach(model: str, file: str, revision: str | None) -> None:
    """Raise at once for a model that is nowhere; transformers asks the hub again and again, for a minute."""
    import huggingface_hub

    if model.startswith(_PATHS) or model.count("/") > 1:
        raise UserError(f"cannot load model {model!r}: there is no such folder; give one, or a hub name")
    if not isinstance(huggingface_hub.try_to_load_from_cache(model, file, revision=revision), str):
        huggingface_hub.model_info(model, revision=revision, timeout=10)


def _positions(network: Any, text: Any) -> int | None:
    """The most tokens that the model has positions for; None where it has no limit."""
    import torch

    limit = getattr(text, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:  # XLNet says -1
        return None
    for name, module in network.named_modules():
        # RoBERTa's positions begin after that of padding.
        if (
            name.endswith("position_embeddings")
            and isinstance(module, torch.nn.Embedding)
            and module.padding_idx is not None
            and module.num_embeddings == limit
        ):
            return limit - module.padding_idx - 1
    return limit
