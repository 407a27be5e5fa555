"""Tokenizers, as harvest wants them: fast ones, which cut texts of any length into windows."""

from typing import Any

from saelight.errors import UserError

_LONGEST = int(1e30)


def prepared(tokenizer: Any, model: str) -> Any:
    """The tokenizer, ready for texts of any length. Raises `UserError` for a slow one."""
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(f"model {model!r} has no fast tokenizer; choose one with a tokenizer.json")
    # Longer texts than the model takes are cut into windows by harvest: the tokenizer's warning would be wrong.
    tokenizer.model_max_length = _LONGEST
    return tokenizer


def tokenizer_at(name: str, model: str, **where: Any) -> Any:
    """The tokenizer of a folder or of a name on the hub, for `model`; `where` goes to from_pretrained.

    Raises:
        UserError: It is a slow one.
        LookupError: There is none.
    """
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **where)
    except Exception as error:  # the hub's, transformers' and the formats' own are of many kinds
        raise LookupError(first_line(error)) from error
    # For some models transformers makes one up, without a vocabulary, where there is no file of it.
    if len(tokenizer) - len(set(tokenizer.all_special_ids)) < 2:
        raise LookupError(f"there is no tokenizer.json in {name}")
    return prepared(tokenizer, model)


def first_line(error: Exception) -> str:
    """What an exception says, in a line that does not end in punctuation."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".:; ")
