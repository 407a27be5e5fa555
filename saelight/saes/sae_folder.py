"""The folder of a trained SAE (docs/saes.md), checked against one declared schema before anything in it is used.

Nothing is imported because of what a folder says, and nothing is allocated that its own weights do not vouch for.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from saelight.errors import UserError, one_line
from saelight.ops.normalisation import Kind
from saelight.saes.plain_data import configure, from_spec
from saelight.saes.sae import SAE, SAEConfig

FORMAT: Literal["saelight-sae"] = "saelight-sae"
VERSION = 1
CONFIG, WEIGHTS = "config.json", "sae.safetensors"
MEANS = {side: f"{side}.mean" for side in ("normalisation", "target_normalisation")}
"""By their keys in the config: the names of the means beside the weights."""
_LARGEST_CONFIG = 16 * 2**20  # bytes; one is some thousands
_LARGEST_SCALE = 1e19  # of rows so small, or of 1/that so large, ‖x‖² is no float32
_DTYPES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""As safetensors writes them."""


@dataclass(kw_only=True)
class Units:
    """What an SAE was trained in; a mean lies beside the weights."""

    kind: Kind
    scale: float

    def __post_init__(self) -> None:
        if not 1 / _LARGEST_SCALE <= self.scale <= _LARGEST_SCALE:
            raise UserError(f"normalisation scale {self.scale} is not one: it must be a positive, finite number")
        if self.kind == "none" and self.scale != 1:
            raise UserError(f"normalisation of kind none has scale 1, not {self.scale}")


@dataclass(kw_only=True)
class Description:
    """`config.json`, key for key."""

    format: Literal["saelight-sae"] = FORMAT
    version: int = VERSION
    name: str
    class_path: str
    init_args: dict[str, Any]
    d_in: int
    d_sae: int
    seed: int
    d_out: int | None
    normalisation: Units
    target_normalisation: Units | None
    source: dict[str, Any]
    target_source: dict[str, Any] | None
    training: dict[str, Any]
    versions: dict[str, Any]
    commit: str | None
    kernels: dict[str, Any]
    sha256: dict[str, str] | None = None
    """Of the weights' file, and of all the other keys of this one; None where nobody vouches for them."""

    def __post_init__(self) -> None:
        for name in ("d_in", "d_sae", "d_out"):
            if (width := getattr(self, name)) is not None and width < 1:
                raise UserError(f"{name} must be at least 1, got {width}")
        if self.d_out is None and self.target_normalisation is not None:
            raise UserError("target_normalisation is a transcoder's, and d_out is null")


class Described(NamedTuple):
    """An SAE that is known from its config alone."""

    config: Description
    sae_config: SAEConfig
    skeleton: SAE
    """Without memory, on the meta device."""


def published(sae: SAE) -> dict[str, Tensor]:
    """The tensors that inference needs."""
    return {name: tensor for name, tensor in sae.state_dict().items() if name not in sae.training_state}


def describe(folder: str | Path) -> Described:
    """What the folder's `config.json` says. No weight is read, but that there are some is known.

    Raises:
        UserError: for a folder that holds no SAE, a config that is not one, was changed, is of a newer saelight or of a
            variant that is not imported.
    """
    folder = Path(folder)
    text = _bytes(folder, CONFIG)
    _size(folder, WEIGHTS)
    try:
        plain = json.loads(text)
        digest = config_digest(plain) if isinstance(plain, dict) else ""
    except (ValueError, RecursionError) as error:
        raise UserError(f"{folder} cannot be read: {CONFIG} is no JSON ({error})") from None
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise UserError(f"{folder}/{CONFIG} is not a {FORMAT} config")
    if isinstance(version := plain.get("version"), int) and version > VERSION:
        raise UserError(f"{folder} is of a newer saelight (format {version}, this one reads {VERSION}): upgrade")
    try:
        config = configure(Description, plain)
        if config.version != VERSION:
            raise UserError(f"version: expected {VERSION}, got {config.version}")
        sae_config = from_spec({"class_path": config.class_path, "init_args": config.init_args})
        with torch.device("meta"):
            skeleton = sae_config.build(config.d_in, config.seed, config.d_out)
        if skeleton.d_sae != config.d_sae:
            raise UserError(f"d_sae is {config.d_sae}, but its fields make it {skeleton.d_sae}")
    except UserError as error:
        raise UserError(f"{folder}/{CONFIG} does not describe an SAE: {error}") from None
    except Exception as error:
        # Whatever a class raises when it is built, it raises for what the file says.
        raise UserError(f"{folder}/{CONFIG} does not describe an SAE that can be built: {one_line(error)}") from error
    _check_digest(folder, CONFIG, config, digest)
    return Described(config, sae_config, skeleton)


def read_weights(folder: str | Path, described: Described, allow_nan: bool = False) -> dict[str, Tensor]:
    """The tensors of the folder, by name, the means among them.

    Args:
        allow_nan: Take numbers that are not finite.

    Raises:
        UserError: for a file that is damaged, or whose tensors' names, types and shapes are not those described.
    """
    folder = Path(folder)
    expected = {name: (_DTYPES.get(t.dtype), list(t.shape)) for name, t in published(described.skeleton).items()}
    widths = (described.skeleton.d_in, described.skeleton.d_out)
    for (side, name), width in zip(MEANS.items(), widths, strict=True):
        if (units := getattr(described.config, side)) is not None and units.kind == "standard":
            expected[name] = "F64", [width]
    try:
        digest = file_digest(folder / WEIGHTS)
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            found = {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}
            for name in sorted(expected.keys() | found.keys()):
                wanted, there = expected.get(name, "none"), found.get(name, "none")
                if wanted != there:
                    raise UserError(f"{folder}: {WEIGHTS} does not fit {CONFIG}: {name}: expected {wanted}, found {there}")
            tensors = {name: file.get_tensor(name) for name in found}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder} cannot be read: {WEIGHTS}: {one_line(error)}") from None
    _check_digest(folder, WEIGHTS, described.config, digest)
    if not allow_nan:
        check_finite(tensors, f"{folder}/{WEIGHTS}")
    return tensors


def check_finite(tensors: dict[str, Tensor], what: str) -> None:
    """Raise `UserError` where a tensor holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise UserError(
                f"{what}: {name} holds NaN or infinity, which make every result NaN: export the SAE again, or to look at it "
                "all the same saelight.load(folder, allow_nan=True)"
            )


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def config_digest(config: dict[str, Any]) -> str:
    """The SHA-256 of a config's content but for its own digests, however it is written."""
    content = {key: value for key, value in config.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_digest(folder: Path, file: str, config: Description, digest: str) -> None:
    if config.sha256 is not None and config.sha256.get(file) != digest:
        raise UserError(
            f"{folder}/{file} is not as it was written, by the sha256 in {CONFIG}: copy the folder again; if you changed it "
            f"yourself, drop `sha256` from {CONFIG}"
        )


def _bytes(folder: Path, file: str) -> bytes:
    if _size(folder, file) > _LARGEST_CONFIG:
        raise UserError(f"{folder} cannot be read: {file} has more than {_LARGEST_CONFIG:,} bytes")
    try:
        return (folder / file).read_bytes()
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error}") from None


def _size(folder: Path, file: str) -> int:
    """Of a regular file: reading a pipe would wait for ever."""
    try:
        if not (folder / file).is_file():
            raise UserError(f"{folder} holds no trained SAE: {file} is missing, or no regular file")
        return (folder / file).stat().st_size
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error}") from None
