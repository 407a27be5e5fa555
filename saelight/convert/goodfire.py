"""Goodfire, read only: one file, `.pt` or `.pth`.

ReLU: encoder_linear.weight (F, D), encoder_linear.bias (F), decoder_linear.weight (D, F), decoder_linear.bias (D), which is
not subtracted from the input. The file's name tells model and layer. Shapes: D d_in, F d_sae.
"""

import re
import zipfile
from pathlib import Path

from saelight.convert import origin
from saelight.convert.files_of_tensors import Tensors, torch_file
from saelight.convert.format import Format, Layout, from_parts
from saelight.convert.parts import Parts, make
from saelight.saes.provenance import Provenance

_NAME = "encoder_linear.weight"


def _is_one(path: Path) -> bool:
    if path.suffix not in (".pt", ".pth") or not zipfile.is_zipfile(path):
        return False
    # The names of tensors stand in the archive's index as they are: to look for one there loads nothing.
    with zipfile.ZipFile(path) as archive:
        index = next((entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")), None)
        return index is not None and _NAME.encode() in archive.read(index)


def _read(path: Path) -> Parts:
    file = Tensors(torch_file(path), path)
    d_sae, d_in = file.shape(_NAME)
    tensors = {
        "W_enc": file.take(_NAME, d_sae, d_in).T,
        "b_enc": file.take("encoder_linear.bias", d_sae),
        "W_dec": file.take("decoder_linear.weight", d_in, d_sae).T,
        "b_dec": file.take("decoder_linear.bias", d_in),
    }
    file.nothing_left()
    name = re.fullmatch(r"(.+)-SAE-l(\d+)", path.stem)
    facts = {"model": f"meta-llama/{name[1]}" if name else None, "dataset": "lmsys/lmsys-chat-1m" if name else None}
    return Parts(
        config=make("ReLU", d_sae=d_sae),
        d_in=d_in,
        tensors=tensors,
        subtracts_b_dec=False,
        provenance=Provenance(
            name=path.stem,
            source=origin.source("goodfire", facts, f"blocks.{name[2]}.hook_resid_post" if name else None),
        ),
        where=path,
    )


_LAYOUTS = tuple(Layout((pattern,), is_file=True) for pattern in ("*.pt", "*.pth"))
FORMAT = Format(name="goodfire", is_one=_is_one, layouts=_LAYOUTS, read=from_parts(_read), several="*-SAE-l*.pt*")
