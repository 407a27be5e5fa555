"""The class that declares the source a config names, without Lightning for saelight's own.

One rule and no list: `XDataModule`, bound in datamodule.py, is declared by `XSource` in `x_source.py`.
"""

import importlib
import pkgutil

import saelight.data
from saelight.data.source import Source
from saelight.errors import UserError, did_you_mean

_OURS = ("", "saelight", "saelight.data.datamodule")
_FILE, _BOUND = "_source", "DataModule"


def find(class_path: str) -> type[Source] | None:
    """The declaration of the data module that `class_path` names; of a user's own, which is imported, the class itself.

    None for a LightningDataModule that declares nothing: one that is no `Source`, or that has an `__init__` of its own
    in place of fields. It can be trained on, but nothing is known of it before.

    Raises:
        UserError: There is no such class, or it is no LightningDataModule.
    """
    module, _, name = class_path.rpartition(".")
    if module not in _OURS:
        return _users(class_path, module, name)
    files = _files()
    if name not in files:
        raise UserError(f"no data module {class_path!r}{did_you_mean(name, files)}")
    file = files[name]
    return getattr(importlib.import_module(f"saelight.data.{file}"), name.removesuffix(_BOUND) + "Source")


def _files() -> dict[str, str]:
    """The files of saelight's declarations, by the names of their data modules."""
    found = [m.name for m in pkgutil.iter_modules(saelight.data.__path__) if m.name.endswith(_FILE)]
    return {"".join(map(str.capitalize, file.removesuffix(_FILE).split("_"))) + _BOUND: file for file in found}


def _users(class_path: str, module: str, name: str) -> type[Source] | None:
    from lightning.pytorch import LightningDataModule

    try:
        home = importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"data.class_path {class_path!r} cannot be imported ({error}); set PYTHONPATH") from None
    cls = getattr(home, name, None)
    if cls is None:
        raise UserError(f"no data module {class_path!r}{did_you_mean(name, vars(home))}")
    if not (isinstance(cls, type) and issubclass(cls, LightningDataModule)):
        raise UserError(f"data.class_path {class_path!r} is no LightningDataModule; derive it from RowsDataModule")
    init = next(base for base in cls.__mro__ if "__init__" in vars(base))
    return cls if issubclass(cls, Source) and "__dataclass_fields__" in vars(init) else None
