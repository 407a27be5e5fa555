"""safetensors: a JSON header that says where each tensor lies. https://github.com/huggingface/safetensors"""

import math
from pathlib import Path

import numpy as np

from saelight.data.foreign.layout import Address, Layout
from saelight.data.foreign.named_arrays import Array, layout_of
from saelight.data.foreign.values import BFLOAT16, Values, floats, refusal
from saelight.data.shards.header import Header, read_header
from saelight.errors import UserError

SUFFIX = ".safetensors"
_STORED = {
    "BF16": "<u2",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
    "I8": "i1",
    "U8": "u1",
    "I16": "<i2",
    "U16": "<u2",
    "I32": "<i4",
    "U32": "<u4",
    "I64": "<i8",
    "U64": "<u8",
    "BOOL": "?",
}
"""The items of the tensors that NumPy can hold; of bfloat16 their bits."""


def is_here(path: Path) -> bool:
    return path.suffix == SUFFIX and path.is_file()


def read(address: Address) -> Layout:
    """The tensor that is meant. Raises `UserError` when the file is damaged, or none can be meant."""
    address.without_layers()
    header = read_header(address.path)
    if not header.tensors:
        raise UserError(f"{address.path} holds no tensors; save the activations again")
    return layout_of(address, header.size, arrays_of(address.path, header), tensor_values)


def arrays_of(path: Path, header: Header) -> dict[str, Array]:
    """All tensors of the file. Raises `UserError` when one is not as long as its shape says."""
    arrays = {}
    for name, tensor in header.tensors.items():
        stored = np.dtype(_STORED[tensor.dtype]) if tensor.dtype in _STORED else None
        if stored is not None and tensor.size != math.prod(tensor.shape) * stored.itemsize:
            raise UserError(
                f"{path}:{name} is damaged: {tensor.size} bytes for {tensor.dtype} {tensor.shape}; copy it again"
            )
        dtype = tensor.dtype if stored is None or tensor.dtype == "BF16" else stored
        arrays[name] = Array(tuple(tensor.shape), dtype, tensor.start)
    return arrays


def tensor_values(dtype: np.dtype | str, place: object) -> Values:
    """Activations of a tensor's dtype."""
    if isinstance(dtype, np.dtype):
        return floats(dtype, place)
    if dtype == "BF16":
        return BFLOAT16
    raise UserError(refusal(dtype, place))
