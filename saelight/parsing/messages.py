"""Parse errors as one clear line: where the key stands, and the nearest name for one that is not known."""

import dataclasses
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, get_loader, set_loader

from saelight.errors import did_you_mean
from saelight.parsing.wrong_file import sweep_among
from saelight.parsing.yaml_files import check_unique

# How jsonargparse words a key, a class or a set of values it does not know.
_UNKNOWN_KEY = re.compile(r"(?:[Oo]ption|Key|unrecognized arguments:) ['\"]?(?:--)?(?P<name>[\w.+-]+)")
_UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (?P<name>\S+)")
_WRONG_VALUE = re.compile(r"Literal\[(?P<known>[^\]]*)\]\. Got value: (?P<name>\S+)")
_SECTIONS = ("trainer", "model", "data")
"""The groups of a config's keys."""


class OneLineErrors:
    """Mixin of a jsonargparse parser: an error is one line on stderr, and exit code 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        print(f"saelight: error: {explain(message, sys.argv[1:])}", file=sys.stderr)
        sys.exit(2)


class OneLineParser(OneLineErrors, ArgumentParser):
    """jsonargparse's parser with errors in one line."""


def explain(message: str, args: list[str]) -> str:
    """jsonargparse's message in one line, with the place of the key at fault in the configs that `args` name."""
    if sweep := sweep_among(args):
        return sweep
    line = " ".join(part.strip(" -") for part in message.splitlines() if part.strip())
    line = re.sub(r"\bParser key ", "", line)
    line = re.sub(r"Does not validate against any of the Union subtypes Subtypes: .*? Errors: ", "", line)
    # of a union's errors, one per member, the types and the value are what helps
    line = re.sub(r"(Expected a <class '\w+'> )+Given value type: .*?Given value: ", _expected, line)
    line = re.sub(r" Given value type: .*", "", line)
    if match := _WRONG_VALUE.search(line):
        return line + did_you_mean(match["name"], re.findall(r"[\w.+-]+", match["known"]))
    if match := _UNKNOWN_CLASS.search(line):
        unknown = match["name"]
        where = _locate(lambda key, value: value == unknown, args)
        return f"{where}no class {unknown!r}{did_you_mean(unknown, _known_classes())}"
    if match := _UNKNOWN_KEY.search(line):
        parts = match["name"].split(".")
        known = _known_keys()
        if len(parts) > 1 and parts[0] not in _SECTIONS:
            known = set(_SECTIONS)
        name = next((part for part in parts if part not in known), parts[-1])
        where = _locate(lambda key, value: key == name, args)
        return f"{where}{line}{did_you_mean(name, known)}"
    return line


def _expected(errors: re.Match) -> str:
    types = re.findall(r"Expected a <class '(\w+)'>", errors[0])
    return f"expected {' or '.join('null' if name == 'NoneType' else name for name in types)}, got "


def refuse_duplicate_keys() -> None:
    """Make every config with one key twice an error; YAML itself would keep the last, silently."""
    load = get_loader("yaml")

    def strict(text: str) -> Any:
        check_unique(yaml.compose(text))
        return load(text)

    set_loader("yaml", strict, exceptions=(yaml.YAMLError,))


def _locate(found: Callable[[str, Any], bool], args: list[str]) -> str:
    """`"file: dotted.key: "` of the first pair in the named configs that `found(key, value)` accepts, or nothing."""
    files = [b for a, b in itertools.pairwise(args) if a in ("-c", "--config")]
    files += [a.partition("=")[2] for a in args if a.startswith("--config=")]
    for file in files:
        try:
            content = yaml.safe_load(Path(file).read_text())
        except (OSError, yaml.YAMLError):
            continue
        for path, value in _pairs(content):
            if found(path[-1], value):
                return f"{file}: {'.'.join(path)}: "
    return ""


def _pairs(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, str(key)), inner
            yield from _pairs(inner, (*path, str(key)))


def _saelight_classes() -> list[type]:
    """The classes a config may name, as far as they are imported."""
    modules = [module for name, module in sys.modules.items() if name.startswith("saelight.")]
    members = [member for module in modules for member in vars(module).values() if inspect.isclass(member)]
    return [c for c in dict.fromkeys(members) if c.__module__.startswith("saelight.") and not inspect.isabstract(c)]


def _known_classes() -> list[str]:
    return [c.__name__ for c in _saelight_classes()]


def _known_keys() -> set[str]:
    """Fields and parameters of every class a config may name, and the top-level keys."""
    keys = {*_SECTIONS, "config", "ckpt_path", "class_path", "init_args"}
    for cls in _saelight_classes():
        if dataclasses.is_dataclass(cls):
            keys |= {field.name for field in dataclasses.fields(cls)}
        for base in cls.__mro__[:-1]:
            if (init := vars(base).get("__init__")) is not None:
                keys |= set(inspect.signature(init).parameters)
    return keys - {"self", "args", "kwargs"}
