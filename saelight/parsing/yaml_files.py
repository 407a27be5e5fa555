"""YAML as people mean it: a key is a text and stands once in a mapping, 1e-4 is a number, 1:12:00:00 a text.

Files are UTF-8 on every machine. What no person writes (a value that holds itself, or nests hundreds deep) is refused.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from saelight.errors import UserError

_Fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 100
_MOST_VALUES = 1_000_000
"""Of a file, those that stand for others (aliases) counted as often as they stand."""
_FLOAT = r"""[-+]?(?:\d[\d_]*(?:\.[\d_]*)?(?:[eE][-+]?\d+)|\d[\d_]*\.[\d_]*|\.\d+(?:[eE][-+]?\d+)?|\.(?:inf|Inf|INF))$
|\.(?:nan|NaN|NAN)$"""
# YAML 1.1 takes 1:30 for 90.
_INT = r"[-+]?0b[01_]+$|[-+]?0[0-7_]+$|[-+]?(?:0|[1-9][\d_]*)$|[-+]?0x[\da-fA-F_]+$"
_REPLACED = {f"tag:yaml.org,2002:{kind}" for kind in ("float", "int", "timestamp")}


class _Loader(_Fast):  # type: ignore[misc, valid-type]  # which of the two, only the machine knows
    """YAML 1.1 takes 1e-4 for text, 1:30 and 2026-01-01 for none."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own name for it)
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
        for first, resolvers in _Fast.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        # What stands for other keys (<<) comes before they are read.
        self.flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_FLOAT, re.VERBOSE), list("-+0123456789."))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(_INT), list("-+0123456789"))


def read(path: str | Path) -> Any:
    """The content of a YAML file. Raises `UserError` naming file and line when it cannot be read."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except ValueError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error}") from None
    try:
        return parse(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from None


def parse(text: str) -> Any:
    """The value that `text` writes, as on a command line: `1e-4`, `true`, `[1, 2]`, `{kind: cosine}`. Raises `YAMLError`."""
    check(text)
    try:
        return yaml.load(text, Loader=_Loader)
    except ValueError as error:  # a number of thousands of digits
        raise yaml.YAMLError(str(error)) from None


def dump(value: Any) -> str:
    """Plain data as YAML, keys in their order."""
    return yaml.dump(value, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False, width=120)


def check(text: str) -> None:
    """Raise `YAMLError` for a key that stands twice, of which YAML itself would keep the last, silently; for a key that is
    no text, and for values without end."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"nests more than {_DEEPEST} deep")
    node = yaml.compose(text, Loader=_Loader)
    if node is not None and _size(node, {}) > _MOST_VALUES:
        raise yaml.YAMLError(f"stands for more than {_MOST_VALUES:,} values: use fewer aliases")


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node stands for; 0 in `sizes` marks those that are being counted."""
    line = node.start_mark.line + 1
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise yaml.YAMLError(f"holds itself (line {line}): drop the alias")
        return sizes[id(node)]
    sizes[id(node)] = 0
    size = 1
    if isinstance(node, yaml.MappingNode):
        _check_keys([key for key, _ in node.value])
        size += sum(_size(value, sizes) for _, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_size(value, sizes) for value in node.value)
    sizes[id(node)] = size
    return size


def _check_keys(keys: list[yaml.Node]) -> None:
    seen = set()
    for key in keys:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.YAMLError(f"a key must be a text (line {line}): is this a template that is yet to be filled in?")
        if key.value in seen:
            raise yaml.YAMLError(f"{key.value!r} stands twice in one mapping (line {line}): rename or drop one")
        seen.add(key.value)
