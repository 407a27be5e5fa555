"""Which model is to run, and what is known of it once it is loaded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from saelight.errors import UserError


@dataclass(eq=False)
class ModelSettings:
    """Which model runs, and how. `load` gives it."""

    model: str
    """The model: a name on the Hugging Face hub, a folder, a .gguf file (or OWNER/NAME/FILE.gguf of the hub), or
    MODULE:FUNCTION, the import path of a function without arguments that returns a torch.nn.Module, or a pair of it and its
    tokenizer or image transform. `{package:NAME}` is the folder of an installed package."""
    revision: str | None = field(default=None, kw_only=True)
    """Branch, tag or commit of a model on the hub."""
    tokenizer: str | None = field(default=None, kw_only=True)
    """Name or folder of the tokenizer, where it is not with the model."""
    model_dtype: Literal["float32", "bfloat16", "float16"] = field(default="float32", kw_only=True)
    """What the model computes in."""
    attention: str | None = field(default=None, kw_only=True)
    """Attention implementation of transformers: eager, sdpa, flash_attention_2, … Default: transformers' own choice."""
    device: str = field(default="auto", kw_only=True)
    """auto (the first GPU, or else the CPU), or a torch device."""
    device_map: str | dict[str, int | str] | None = field(default=None, kw_only=True)
    """Spread the model over devices, as transformers' device_map: auto, balanced, sequential, or a device for each module.
    Needs accelerate; `device` is not used then."""
    trust_remote_code: bool = field(default=False, kw_only=True)
    """Run Python code that comes with the model. Without it such a model is refused; nobody is asked."""


class LoadedModel(NamedTuple):
    """A model that can be run."""

    name: str
    """As the user gave it, placeholders replaced."""
    network: Any
    """The torch.nn.Module, in eval mode."""
    tokenizer: Any = None
    """Its fast tokenizer; None where it has none."""
    image_transform: Any = None
    """What makes (3, H, W) pixels of Pillow's images, or transformers' image processor; None for models of text."""
    vocabulary: int | None = None
    """How many token ids the model has; None where it does not say."""
    positions: int | None = None
    """The most tokens that the model has positions for; None where it has no limit."""
    lacks: str = "none is with it"
    """Why there is no tokenizer."""

    @property
    def special(self) -> int:
        """Special tokens that the tokenizer adds to a window of text."""
        return 0 if self.tokenizer is None else self.tokenizer.num_special_tokens_to_add()

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokens that tokenizers add: those of beginning, end, separation, class and padding."""
        names = ("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "pad_token_id")
        return frozenset(i for name in names if (i := getattr(self.tokenizer, name, None)) is not None)

    def check_context(self, context: int) -> None:
        """Raises `UserError` for windows of text that the model has no positions for, or no room beside special tokens."""
        if not self.special < context <= (self.positions or context):
            raise UserError(
                f"context must be in [{self.special + 1}, {self.positions or '∞'}] for model {self.name!r}, got {context}"
            )

    def check_token_ids(self, ids: Sequence[int], document: int) -> None:
        """Raises `UserError` for token ids that the tokenizer, or the model, does not have."""
        counts = (self.vocabulary, None if self.tokenizer is None else len(self.tokenizer))
        most = min((n for n in counts if n is not None), default=math.inf)
        if (odd := next((i for i in (min(ids), max(ids)) if not 0 <= i < most), None)) is not None:
            raise UserError(
                f"document {document} has token id {odd}, and model {self.name!r} has ids from 0 to {most - 1}; it was "
                "cut by another tokenizer: name its model, or give texts"
            )
