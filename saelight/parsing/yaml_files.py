"""YAML as people mean it: a key stands once in a mapping, and 1e-4 is a number."""

import re
from pathlib import Path
from typing import Any

import yaml

from saelight.errors import UserError

_Fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Fast):  # type: ignore[misc, valid-type]  # which of the two, only the machine knows
    """YAML 1.1 takes 1e-4 for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:\d[\d_]*(?:\.[\d_]*)?(?:[eE][-+]?\d+)|\d[\d_]*\.[\d_]*|\.\d+(?:[eE][-+]?\d+)?|\.(?:inf|Inf|INF))$"
        r"|\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def read(path: str | Path) -> Any:
    """The content of a YAML file. Raises `UserError` naming file and line when it cannot be read."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path} cannot be read: {reason}") from None
    try:
        check_unique(yaml.compose(text, Loader=_Loader))
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None


def parse(text: str) -> Any:
    """The value that `text` writes, as on a command line: `1e-4`, `true`, `[1, 2]`, `{kind: cosine}`."""
    return yaml.load(text, Loader=_Loader)


def dump(value: Any) -> str:
    """Plain data as YAML, keys in their order."""
    return yaml.dump(value, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False, width=120)


def check_unique(node: yaml.Node | None) -> None:
    """Raise `YAMLError` for a key that stands twice; YAML itself would keep the last, silently."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"{key.value!r} stands twice in one mapping (line {line}): rename or drop one")
            seen.add(key.value)
            check_unique(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            check_unique(value)
