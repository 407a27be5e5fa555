"""saev, read only: `sae.pt`, a line of JSON and then a state_dict (schemas without number to 5).

W_enc (D, F), W_dec (F, D), b_enc, b_dec, and for BatchTopK activation.threshold; b_dec is not subtracted from the input. Its
TopK keeps a selected latent that is negative, saelight's makes it 0: they differ on tokens with fewer than k positive ones.
Shapes: D d_in, F d_sae.
"""

import json
from pathlib import Path
from typing import Any

from saelight.convert import origin
from saelight.convert.files_of_tensors import Tensors, part, torch_file, whole
from saelight.convert.format import Format, Layout, from_parts
from saelight.convert.parts import Parts, make
from saelight.errors import UserError
from saelight.saes.provenance import Provenance

_FILE = "sae.pt"
_LONGEST_HEADER = 1 << 20
_NEWEST = 5


def _weights(path: Path) -> Path | None:
    places = [path] if path.is_file() else [path / _FILE, path / "checkpoint" / _FILE]
    return next((place for place in places if place.name == _FILE and place.is_file()), None)


def _is_one(path: Path) -> bool:
    if (weights := _weights(path)) is None:
        return False
    with weights.open("rb") as file:
        return file.read(1) == b"{"


def _read(path: Path) -> Parts:
    weights = _weights(path)
    assert weights is not None  # as `_is_one` has seen
    header, size = _header(weights)
    activation, k = _activation(header, weights)
    file = Tensors(torch_file(weights, skip=size), weights)
    d_in, d_sae = file.shape("W_enc")
    tensors = {
        "W_enc": file.take("W_enc", d_in, d_sae),
        "b_enc": file.take("b_enc", d_sae),
        "W_dec": file.take("W_dec", d_sae, d_in),
        "b_dec": file.take("b_dec", d_in),
    }
    made = make("ReLU", d_sae=d_sae)
    # Of BatchTopK, those before it had a threshold selected in each token at inference.
    if activation == "TopK" or (activation == "BatchTopK" and "activation.threshold" not in file):
        made = make("TopK", d_sae=d_sae, k=k, decoder="unit")
    elif activation == "BatchTopK":
        made = make("BatchTopK", d_sae=d_sae, k=k, decoder="unit")
        tensors["threshold"] = file.take("activation.threshold").expand(d_sae)
    file.nothing_left()
    return Parts(
        config=made,
        d_in=d_in,
        tensors=tensors,
        subtracts_b_dec=False,
        provenance=Provenance(
            name=(weights.parent.parent if weights.parent.name == "checkpoint" else weights.parent).name or "sae",
            source=origin.source("saev", {}, None, None, header),
            versions={"saev": str(header["lib"])} if "lib" in header else {},
            commit=header["commit"] if isinstance(header.get("commit"), str) else None,
        ),
        where=weights,
    )


def _header(weights: Path) -> tuple[dict[str, Any], int]:
    """The first line, and its bytes."""
    with weights.open("rb") as file:
        line = file.readline(_LONGEST_HEADER)
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise UserError(f"{weights} does not begin with a line of JSON, as saev's files do: it is damaged")
    schema = header.get("schema", 0)
    if not isinstance(schema, int) or not 0 <= schema <= _NEWEST:
        raise UserError(f"{weights} has schema {schema}, those up to {_NEWEST} are read: upgrade saelight")
    return header, len(line)


def _activation(header: dict[str, Any], where: Path) -> tuple[str, int]:
    """The class of the activation, and its k."""
    config = part(header, "cfg")
    if header.get("cls") in ("Relu", "TopK", "BatchTopK"):
        name, settings = header["cls"], config  # the first of two schemas 1
    else:
        activation = part(config, "activation")
        name, settings = activation.get("cls", "Relu" if "schema" not in header else None), part(activation, "params")
    if name not in ("Relu", "TopK", "BatchTopK"):
        raise UserError(f"{where}: activation {name!r} is none of saev's Relu, TopK and BatchTopK")
    return name, whole(settings, "top_k", where, 32)


_LAYOUTS = Layout((_FILE,)), Layout((f"checkpoint/{_FILE}",)), Layout((_FILE,), is_file=True)
FORMAT = Format(name="saev", is_one=_is_one, layouts=_LAYOUTS, read=from_parts(_read))
