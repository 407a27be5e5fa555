"""Arguments of data modules, of saelight's Trainer and of the bank, read from their source: importing them would import
Lightning, which takes longer than all the checks together."""

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from saelight.errors import UserError, did_you_mean

_HOME = Path(__file__).parents[2]
_DATA = {
    "ActivationDataModule": _HOME / "data" / "datamodule.py",
    "SyntheticDataModule": _HOME / "data" / "synthetic_datamodule.py",
}


def check_keys(config: dict[str, Any], where: str) -> None:
    """Raise `UserError` for an argument that the Trainer, the bank or the data module does not take, or an unknown class."""
    _check(config.get("trainer") or {}, _trainer(), "trainer", where)
    _check(config.get("model") or {}, _arguments(_HOME / "bank" / "sae_bank.py", "SAEBank"), "model", where)
    data = config.get("data") or {}
    path = str(data.get("class_path", ""))
    if (known := _data_arguments(data)) is not None:
        _check(data.get("init_args") or {}, known, "data", where)
    elif "." not in path:
        raise UserError(f"{where}: no data module {path!r}{did_you_mean(path, _DATA)}")


def default_of(data: dict[str, Any], name: str, otherwise: Any) -> Any:
    """The default of a data module's argument; `otherwise` where it has none or is not saelight's."""
    default = (_data_arguments(data) or {}).get(name)
    return otherwise if default is None else default


def _check(given: dict[str, Any], known: dict[str, Any], root: str, where: str) -> None:
    for key in given:
        if key not in known:
            raise UserError(f"{where}: unknown key '{root}.{key}'{did_you_mean(key, known)}")


def _data_arguments(data: dict[str, Any]) -> dict[str, Any] | None:
    module, _, name = str(data.get("class_path", "ActivationDataModule")).rpartition(".")
    if name not in _DATA or module not in ("", "saelight", "saelight.data.datamodule", "saelight.data.synthetic_datamodule"):
        return None
    return _arguments(_DATA[name], name)


@cache
def _trainer() -> dict[str, Any]:
    lightning = Path(importlib.util.find_spec("lightning").origin).parent / "pytorch" / "trainer" / "trainer.py"
    return _arguments(lightning, "Trainer") | _arguments(_HOME / "run" / "trainer.py", "Trainer")


@cache
def _arguments(file: Path, name: str) -> dict[str, Any]:
    """The arguments of a class's `__init__`, with their defaults as far as they are literals."""
    tree = ast.parse(file.read_text())
    cls = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    init = next(node for node in cls.body if isinstance(node, ast.FunctionDef) and node.name == "__init__").args
    plain = dict(zip([a.arg for a in init.args][::-1], init.defaults[::-1], strict=False))
    given = {a.arg: plain.get(a.arg) for a in init.args} | dict(
        zip([a.arg for a in init.kwonlyargs], init.kw_defaults, strict=True)
    )
    return {key: _literal(value) for key, value in given.items() if key != "self"}


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None
