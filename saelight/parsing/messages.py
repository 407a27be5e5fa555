"""Parse errors as one clear line: where the key stands, and the nearest name for one that is not known."""

import contextlib
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

from saelight.errors import UserError, did_you_mean
from saelight.parsing import config_files, yaml_files
from saelight.parsing.config_files import SECTIONS

# How jsonargparse words a key, a class or a set of values it does not know.
_UNKNOWN_KEY = re.compile(r"(?:[Oo]ption|Key|unrecognized arguments:) ['\"]?(?:--)?(?P<name>[\w.+-]+)")
_UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (?P<name>\S+)")
_LONGEST = 500
_NAMED_BY_CONFIGS = tuple(
    f"saelight.{room}" for room in ("saes", "schedules", "data", "bank", "callbacks", "loggers", "run")
)
"""The rooms of classes that configs name."""
_NO_VARIANT = re.compile(r"SAEConfig is abstract")
_PRINT_CONFIG = re.compile(r"unrecognized arguments: (?P<name>skip_default|skip_null|comments)\b")
_TYPE = r"Expected a (?:<class '\w+'>|typing\.Literal\[[^\]]*\]) ?"
_WRONG_VALUE = re.compile(r'(?P<quoted>"(?P<key>[\w.+-]+)": )(?P<known>expected [^:]*), got (?P<name>\S+)$')


class OneLineParser(ArgumentParser):
    """jsonargparse's parser: an error is one line on stderr, and exit code 2; config files are read by our own reader."""

    def read_config(self, path: str) -> dict[str, Any]:
        """What a config file holds. Raises `UserError`."""
        return config_files.read_mapping(path)

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        text = yaml_files.dump(self.read_config(path))
        # Configs that it names in turn lie beside it.
        with contextlib.chdir(Path(path).parent):
            return self.parse_string(text, str(path), *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        line = explain(message, sys.argv[1:])
        # A value of thousands of characters is named in each place where it does not fit.
        print(f"saelight: error: {line if len(line) <= _LONGEST else f'{line[:_LONGEST]}…'}", file=sys.stderr)
        sys.exit(2)


def explain(message: str, args: list[str]) -> str:
    """jsonargparse's message in one line, with the place of the key at fault in the configs that `args` name."""
    line = " ".join(part.strip(" -") for part in message.splitlines() if part.strip())
    line = re.sub(r"\bParser key ", "", line)
    line = re.sub(r"Does not validate against any of the Union subtypes Subtypes: .*? Errors: ", "", line)
    line = line.replace("required: fit.", "required: ").partition(" Subclass types expect one of")[0]
    if _NO_VARIANT.search(line):
        return _without_variant(args)
    if match := _PRINT_CONFIG.search(line):
        return f"write --print_config={match['name']}, in one word"
    # of a union's errors, one per member, the types and the value are what helps
    line = re.sub(rf"(?:{_TYPE})+(?:\.? ?Got value: |Given value type: .*?Given value: )", _expected, line)
    line = re.sub(r" Given value type: .*", "", line)
    line = re.sub(r"(expected [^:]*, got (\S+))(?: expected [^:]*, got \2)+$", r"\1", line)
    if match := _WRONG_VALUE.search(line):
        key, value = match["key"], match["name"]
        where = _locate(lambda k, v: k == key.rpartition(".")[2] and str(v) == value, args)
        line = f"{where}{line.removeprefix(match['quoted']) if where else line}"
        choices = set(re.findall(r"[\w.+-]+", match["known"].partition("one of ")[2]))
        return line + did_you_mean(value, choices - {value, "or", "null"})
    if match := _UNKNOWN_CLASS.search(line):
        unknown = match["name"]
        where = _locate(lambda key, value: value == unknown, args)
        return f"{where}no class {unknown!r}{did_you_mean(unknown, _known_classes())}"
    if match := _UNKNOWN_KEY.search(line):
        parts = match["name"].split(".")
        known = _known_keys()
        if len(parts) > 1 and parts[0] not in SECTIONS:
            known = set(SECTIONS)
        name = next((part for part in parts if part not in known), parts[-1])
        where = _locate(lambda key, value: key == name, args)
        if name in known and len(parts) == 1:
            return f"{where}{name!r} is no setting of the class that is configured here"
        return f"{where}{line}{did_you_mean(name, known - {name})}"
    return line


def _expected(errors: re.Match) -> str:
    types = re.findall(r"Expected a (?:<class '(\w+)'>|typing\.Literal\[([^\]]*)\])", errors[0])
    words = {f"one of {known.replace(chr(39), '')}" if known else name.replace("NoneType", "null") for name, known in types}
    return f"expected {' or '.join(sorted(words))}, got "


def _without_variant(args: list[str]) -> str:
    """Where an SAE is configured whose variant nobody has named: a flag may have missed its name."""
    content = [content for _, content in _configs(args)]
    known = {name for config in content for path, saes in _pairs(config) if path == ("model", "saes") for name in saes}
    for flag in re.findall(r"--model\.saes\.([^\s=]+)\.\w+", " ".join(args)):
        if any("." in name and flag.startswith(name) for name in known):
            return f"--model.saes.{flag}: a flag cannot set an SAE with a dot in its name; write it into a second --config"
        if flag not in known:
            return f"no SAE is called {flag!r}{did_you_mean(flag, known)}; a new one needs a class_path, as TopK"
    return "an SAE has no class_path: name its variant, as class_path: TopK"


def read_yaml_strictly() -> None:
    """Hold the YAML of every argument to the rules of our files (`yaml_files.check`)."""
    load = get_loader("yaml")

    def strict(text: str) -> Any:
        yaml_files.check(text)
        return load(text)

    set_loader("yaml", strict, exceptions=(yaml.YAMLError, ValueError))


def _locate(found: Callable[[str, Any], bool], args: list[str]) -> str:
    """`"file: dotted.key: "` of the first pair in the named configs that `found(key, value)` accepts, or nothing."""
    for file, content in _configs(args):
        for path, value in _pairs(content):
            if found(path[-1], value):
                return f"{file}: {'.'.join(path)}: "
    return ""


def _configs(args: list[str]) -> Iterator[tuple[str, Any]]:
    """The configs that `args` name, and what is in them."""
    files = [b for a, b in itertools.pairwise(args) if a in ("-c", "--config")]
    for file in files + [a.partition("=")[2] for a in args if a.startswith("--config=")]:
        with contextlib.suppress(UserError):
            yield file, yaml_files.read(file)


def _pairs(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, str(key)), inner
            yield from _pairs(inner, (*path, str(key)))


def _saelight_classes() -> list[type]:
    """The classes a config may name, as far as they are imported."""
    modules = [module for name, module in sys.modules.items() if name.startswith(_NAMED_BY_CONFIGS)]
    members = [member for module in modules for member in vars(module).values() if inspect.isclass(member)]
    return [c for c in dict.fromkeys(members) if c.__module__.startswith("saelight.") and not inspect.isabstract(c)]


def _known_classes() -> list[str]:
    return [c.__name__ for c in _saelight_classes()]


def _known_keys() -> set[str]:
    """Fields and parameters of every class a config may name, and the top-level keys."""
    keys = {*SECTIONS, "config", "ckpt_path", "class_path", "init_args"}
    for cls in _saelight_classes():
        if dataclasses.is_dataclass(cls):
            keys |= {field.name for field in dataclasses.fields(cls)}
        for base in cls.__mro__[:-1]:
            if inspect.isfunction(init := vars(base).get("__init__")):
                keys |= set(inspect.signature(init).parameters)
    return keys - {"self", "args", "kwargs"}
