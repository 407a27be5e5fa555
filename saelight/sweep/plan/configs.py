"""LightningCLI configs as nested dicts: dotted keys set in them, deep merges, canonical text."""

import copy
import hashlib
import json
from typing import Any

from saelight.errors import UserError


def check_sections(config: dict[str, Any], where: str) -> None:
    """Raise `UserError` unless each section of a config is a mapping; the data module may be its class path alone."""
    for key in ("trainer", "model", "data"):
        value = config.get(key)
        if value is not None and not (isinstance(value, dict) or (key == "data" and isinstance(value, str))):
            raise UserError(f"{where}: {key}: expected a mapping, got {value!r}")


def apply(config: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """A copy of `config` with dotted keys set; a mapping is merged into the one that is there."""
    config = copy.deepcopy(config)
    for key, value in settings.items():
        _set(config, key.split("."), copy.deepcopy(value))
    return config


def run_config(base: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The config of a run without its SAEs: `base` with a point's settings that are not its SAE's own."""
    config = copy.deepcopy(base)
    config["model"] = {key: value for key, value in (config.get("model") or {}).items() if key != "saes"}
    config.setdefault("trainer", {})
    if isinstance(config.get("data"), str):
        config["data"] = {"class_path": config["data"]}
    return apply(config, {_full(key): value for key, value in settings.items() if not key.startswith("sae.")})


def sae(defaults: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """`{class_path, **fields}` of a point: the defaults (dotted `sae.` keys) under its settings."""
    own = {key.removeprefix("sae."): value for key, value in settings.items() if key.startswith("sae.")}
    return apply(apply({}, {key.removeprefix("sae."): value for key, value in defaults.items()}), own)


def _full(key: str) -> str:
    """`data.x` is an argument of the data module."""
    root, _, rest = key.partition(".")
    plain = root != "data" or rest.partition(".")[0] in ("class_path", "init_args")
    return key if plain else f"data.init_args.{rest}"


def _set(config: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        if not isinstance(config.get(part), dict):
            config[part] = {}
        config = config[part]
    last = path[-1]
    if isinstance(value, dict) and isinstance(config.get(last), dict):
        for key, inner in value.items():
            _set(config[last], [key], inner)
    else:
        config[last] = value


def add_callback(config: dict[str, Any], callback: dict[str, Any]) -> None:
    """Give a run one more callback."""
    given = config["trainer"].get("callbacks") or []
    config["trainer"]["callbacks"] = [*(given if isinstance(given, list) else [given]), callback]


def find(config: dict[str, Any], key: str) -> Any:
    """The value at a dotted key, `data.x` being an argument of the data module; None where there is none."""
    value: Any = config
    for part in _full(key).split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def canonical(value: Any) -> str:
    """Text that is equal for equal data, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def digest(value: Any) -> str:
    """sha256 of the canonical text, its first 16 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]
