"""A model and its tokenizer from a folder or the hub, for text, without running code that comes with it."""

from pathlib import Path
from typing import Any

from saelight.errors import UserError


def load(model: str, context: int, dtype: str) -> tuple[Any, Any]:
    """The tokenizer and the model, in eval mode.

    Raises:
        UserError: There is no such model, it is none for text, it brings code of its own, or `context` is not for it.
    """
    try:
        import transformers
    except ImportError:
        raise UserError("harvest runs models with transformers; pip install 'saelight[harvest]'") from None
    import torch

    try:
        _check_reach(model)
        config = transformers.AutoConfig.from_pretrained(model, trust_remote_code=False)
        if not hasattr(text := config.get_text_config(), "vocab_size"):
            raise UserError(f"model {model!r} ({config.model_type}) takes no text; harvest runs models of text")
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        network = transformers.AutoModel.from_pretrained(model, dtype=getattr(torch, dtype), trust_remote_code=False).eval()
    except UserError:
        raise
    except Exception as error:  # the hub's, transformers' and the formats' own are of many kinds
        raise UserError(f"cannot load model {model!r}: {_first_line(error)}; give a folder or a hub name") from error
    if not tokenizer.is_fast:
        raise UserError(f"model {model!r} has no fast tokenizer; choose one with a tokenizer.json")
    special, limit = tokenizer.num_special_tokens_to_add(), _positions(network, text)
    if not special < context <= (limit or context):
        raise UserError(f"context must be in [{special + 1}, {limit or '∞'}] for model {model!r}, got {context}")
    # Longer texts than the model takes are cut into windows by harvest: its warning would be wrong.
    tokenizer.model_max_length = int(1e30)
    return tokenizer, network


def _check_reach(model: str) -> None:
    """Raise at once for a model that is nowhere; transformers asks the hub again and again, for a minute."""
    import huggingface_hub

    if Path(model).is_dir():
        return
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise UserError(f"cannot load model {model!r}: there is no such folder; give one, or a hub name")
    if not isinstance(huggingface_hub.try_to_load_from_cache(model, "config.json"), str):
        huggingface_hub.model_info(model, timeout=10)


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


def _first_line(error: Exception) -> str:
    """What an exception says, in a line that does not end in punctuation."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:; ")
