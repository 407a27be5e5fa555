"""A `source`, in which saelight says where activations came from, out of what other formats say, and back.

`model`, `hook` (the dotted path), `hook_name` (TransformerLens's), `context`, `dataset`, as far as they are known, and under
`converted_from` the format and its own config, from which what saelight has no name for goes back to where it came from.
"""

from typing import Any

from saelight import hook_names
from saelight.saes.provenance import Provenance

_FROM = "converted_from"


def source(
    format: str,
    facts: dict[str, Any],
    hook: str | None = None,
    hook_name: str | None = None,
    config: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A `source` of what is known.

    Args:
        format: The name of the format it was read from.
        facts: By saelight's names; None where nothing is known.
        hook: The place in the model, under either name.
        hook_name: TransformerLens's name for it, where the format has both.
        config: The format's own config.
    """
    told = {key: fact for key, fact in facts.items() if isinstance(fact, str | int)}
    names = hook_names.both(hook, told.get("model")) | ({"hook_name": hook_name} if isinstance(hook_name, str) else {})
    return told | names | {_FROM: {"format": format} | ({"config": config} if config else {})}


def config_of(provenance: Provenance, format: str) -> dict[str, Any]:
    """The config that the SAE had in this format before, an empty one if it comes from elsewhere."""
    before = provenance.source.get(_FROM)
    if not isinstance(before, dict) or before.get("format") != format:
        return {}
    config = before.get("config")
    return config if isinstance(config, dict) else {}


def with_both_names(source: dict[str, Any]) -> dict[str, Any]:
    """A source whose place in the model has both names, as far as they are known."""
    return hook_names.both(source.get("hook") or source.get("hook_name"), source.get("model")) | source


def dotted(source: dict[str, Any]) -> str | None:
    """The dotted path of the place in the model, None where only TransformerLens's name is known."""
    hook = source.get("hook")
    return None if not isinstance(hook, str) or hook_names.is_transformer_lens(hook) else hook


def name(source: dict[str, Any]) -> str | None:
    """The place in the model by TransformerLens's name, else by the dotted path; None where neither is known."""
    return next((hook for key in ("hook_name", "hook") if isinstance(hook := source.get(key), str) and hook), None)


def layer(source: dict[str, Any]) -> int | None:
    """The number of the block that the place in the model is in; None where it is in none, or not known."""
    numbers = (hook_names.layer(source.get(key)) for key in ("hook_name", "hook"))
    return next((number for number in numbers if number is not None), None)
