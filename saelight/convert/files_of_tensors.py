"""What the files of other libraries hold: tensors and JSON, and never anything that would be run.

Every failure is one line: a file that is missing, damaged, holds code, or lacks what its format has.
"""

import io
import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor

from saelight.errors import UserError, one_line
from saelight.parsing import yaml_files

_LARGEST = 1e300
_LARGEST_TEXT = 16 * 2**20  # bytes; configs are some thousands


class Tensors:
    """The tensors of one file, taken one by one with the shape each has to have."""

    def __init__(self, tensors: Mapping[str, Any], where: Path | str) -> None:
        self.where = where
        self._left = dict(tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def names(self) -> list[str]:
        """Those not taken yet."""
        return sorted(self._left)

    def shape(self, name: str, dimensions: int = 2) -> tuple[int, ...]:
        """The shape of a tensor, which has to have so many dimensions. Raises `UserError`."""
        shape = tuple(self._tensor(name).shape)
        if len(shape) != dimensions or 0 in shape:
            raise UserError(f"{self.where}: {name} has shape {list(shape)}, not {dimensions} dimensions: it is damaged")
        return shape

    def take(self, name: str, *shape: int) -> Tensor:
        """A tensor of this shape, as float32. Raises `UserError`."""
        tensor = self._tensor(name)
        if tuple(tensor.shape) != shape:
            raise UserError(
                f"{self.where}: {name} has shape {list(tensor.shape)}, where the others make it {list(shape)}: it does not "
                "belong to them, or is damaged"
            )
        del self._left[name]
        return tensor.detach().float()

    def whole(self, name: str) -> int:
        """The same, a whole number. Raises `UserError`."""
        return _whole(self.number(name), name, self.where)

    def number(self, name: str) -> float:
        """The one number of a tensor without dimensions, or with one entry. Raises `UserError`."""
        tensor = self._tensor(name)
        if tensor.numel() != 1:
            raise UserError(f"{self.where}: {name} has shape {list(tensor.shape)}, not one number: it is damaged")
        del self._left[name]
        return float(tensor)

    def everything(self) -> dict[str, Tensor]:
        """All that is left, as float32, whatever its shape. Raises `UserError` for what is no tensor."""
        return {name: self.take(name, *self._tensor(name).shape) for name in self.names()}

    def drop(self, name: str) -> None:
        """Leave a tensor out, where it is there."""
        self._left.pop(name, None)

    def nothing_left(self) -> None:
        """Raise `UserError` where something was not taken: what it does is not known."""
        if self._left:
            raise UserError(
                f"{self.where} holds {', '.join(self.names())[:200]}, which no reader here knows: what it does would be lost"
            )

    def _tensor(self, name: str) -> Tensor:
        tensor = self._left.get(name)
        if not isinstance(tensor, Tensor) or _is_odd(tensor):
            there = ", ".join(map(str, self._left))[:200] or "nothing"
            raise UserError(f"{self.where} has no tensor {name}: found {there}")
        return tensor


def _is_odd(tensor: Tensor) -> bool:
    return tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta


def safetensors(path: Path) -> Tensors:
    """Every tensor of a safetensors file. Raises `UserError`."""
    _regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            return Tensors({name: file.get_tensor(name) for name in file.keys()}, path)  # noqa: SIM118 (no dict)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from None


def safetensors_names(path: Path) -> set[str]:
    """The names of a safetensors file's tensors; none of what is no such file."""
    try:
        _regular(path)
        with safe_open(path, framework="pt") as file:
            return set(file.keys())
    except (OSError, SafetensorError, UserError):
        return set()


def torch_file(path: Path, skip: int = 0) -> dict[Any, Any]:
    """The dict that torch.save wrote, of plain data only, after `skip` bytes of something else. Raises `UserError`."""
    _regular(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, over what a file might be
            source = io.BytesIO(path.read_bytes()[skip:]) if skip else path
            content = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than tensors, or is damaged: nothing in it is run; save its state_dict"
        ) from None
    except Exception as error:
        # Whatever torch raises over a file's content, the file is at fault.
        raise UserError(f"{path} cannot be read: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no state_dict but a {type(content).__name__}: save the SAE's state_dict")
    return content


def npz(path: Path) -> Tensors:
    """Every array of an .npz file. Raises `UserError`."""
    _regular(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Tensors({name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}, path)
    except Exception as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from None


def json_file(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `UserError`."""
    return _mapping(path, json.loads)


def yaml_file(path: Path) -> dict[str, Any]:
    """A YAML mapping. Raises `UserError`."""
    return _mapping(path, yaml_files.parse)


def _mapping(path: Path, parse: Any) -> dict[str, Any]:
    _regular(path)
    if path.stat().st_size > _LARGEST_TEXT:
        raise UserError(f"{path} cannot be read: it has more than {_LARGEST_TEXT:,} bytes")
    try:
        content = parse(path.read_bytes().decode())
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no object of keys and values: it is damaged, or of another program")
    return content


def _regular(path: Path) -> None:
    # Reading a pipe would wait for ever.
    if not path.is_file():
        raise UserError(f"{path} is missing, or no regular file: copy the whole folder")


def value(config: dict[str, Any], key: str, kind: type | tuple[type, ...], where: Path, default: Any = ...) -> Any:
    """A value of a config, of the type it has to have. Raises `UserError`."""
    found = config.get(key, default)
    if found is ...:
        raise UserError(f"{where} lacks {key}, which a reader needs")
    if found is not default and (not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool)):
        raise UserError(f"{where}: {key} is {str(found)[:80]!r}, which it cannot be")
    return found


def whole(config: dict[str, Any], key: str, where: Path, default: Any = ...) -> int:
    """A whole number of a config, at least 0. Raises `UserError`."""
    return _whole(value(config, key, (int, float), where, default), key, where)


def positive(config: dict[str, Any], key: str, where: Path) -> float:
    """A positive, finite number of a config. Raises `UserError`."""
    found = value(config, key, (int, float), where)
    if not 0 < found < _LARGEST:
        raise UserError(f"{where}: {key} is {str(found)[:80]!r}, not a positive, finite number")
    return float(found)


def _whole(number: float, name: str, where: Path | str) -> int:
    if not 0 <= number < 2**31 or number != int(number):
        raise UserError(f"{where}: {name} is {str(number)[:80]!r}, not a whole number of at least 0")
    return int(number)


def part(config: dict[str, Any], key: str) -> dict[str, Any]:
    """An object inside a config; an empty one where there is none."""
    found = config.get(key)
    return found if isinstance(found, dict) else {}
