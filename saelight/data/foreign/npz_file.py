"""NumPy's .npz: a ZIP archive of .npy files, which `np.savez` stores as they are and `np.savez_compressed` deflates."""

import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from saelight.data.foreign import npy_file
from saelight.data.foreign.layout import Address, Layout
from saelight.data.foreign.named_arrays import Array, layout_of
from saelight.data.shards.disk import reading
from saelight.errors import UserError

SUFFIX = ".npz"
_PIECE = 8192
_LOCAL, _LOCAL_BYTES = b"PK\x03\x04", 30
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError)


def is_here(path: Path) -> bool:
    return path.suffix == SUFFIX and path.is_file()


def read(address: Address) -> Layout:
    """The array that is meant. Raises `UserError` when the archive is damaged, or none can be meant."""
    address.without_layers()
    path = address.path
    with reading(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with zipfile.ZipFile(file) as archive:
                arrays = {
                    member.filename.removesuffix(".npy"): _array(path, size, archive, member)
                    for member in archive.infolist()
                    if member.filename.endswith(".npy")
                }
        except UserError:
            raise
        except _DAMAGE as e:
            raise _damaged(path, e) from None
    if not arrays:
        raise UserError(f"{path} holds no arrays; save them with np.savez")
    return layout_of(address, size, arrays, npy_file.numpy_values)


def _array(path: Path, size: int, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    place = f"{path}:{member.filename.removesuffix('.npy')}"
    with archive.open(member) as file:
        header = npy_file.read_header(file, place)  # type: ignore[arg-type]  # typeshed has no BinaryIO of it
    if not header.dtype.hasobject and header.end != member.file_size:
        raise UserError(f"{place} is damaged: {member.file_size} bytes, its header says {header.end}; save it again")
    if member.compress_type != zipfile.ZIP_STORED:
        return Array(header.shape, header.dtype, 0, "compressed", _inflating(path, member.filename, header))
    begin = _data_offset(path, member)
    if begin + member.file_size > size:
        raise UserError(f"{path} is truncated: {place} ends beyond it; copy it again")
    return npy_file.array(path, header, begin + header.length)


def _data_offset(path: Path, member: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: after a header of its own, whose length the archive's list does not say."""
    with reading(path) as file:
        file.seek(member.header_offset)
        local = file.read(_LOCAL_BYTES)
    if len(local) < _LOCAL_BYTES or not local.startswith(_LOCAL):
        raise UserError(f"{path} is damaged: {member.filename} is not where its list says; save it again")
    name, extra = (int.from_bytes(local[at : at + 2], "little") for at in (26, 28))
    return member.header_offset + _LOCAL_BYTES + name + extra


def _inflating(path: Path, name: str, header: npy_file.Header) -> Callable[[], Iterator[np.ndarray]]:
    """The rows of a compressed array, in pieces; one stored by columns at once."""

    def load() -> Iterator[np.ndarray]:
        rows = header.shape[0] if header.shape else 1
        each = header.dtype.itemsize * (int(np.prod(header.shape[1:], dtype=np.int64)) if header.shape else 1)
        step = rows if header.fortran else _PIECE
        try:
            with reading(path) as raw, zipfile.ZipFile(raw) as archive, archive.open(name) as file:
                file.read(header.length)
                for start in range(0, rows, step):
                    n = min(step, rows - start)
                    numbers = np.frombuffer(file.read(n * each), header.dtype)
                    yield numbers.reshape((n, *header.shape[1:]), order="F" if header.fortran else "C")
        except UserError:
            raise
        except _DAMAGE as e:
            raise _damaged(path, e) from None

    return load


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is damaged, or no .npz file ({' '.join(str(error).split())[:200]}); save it again")
