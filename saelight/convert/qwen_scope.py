"""Qwen Scope, read only: `layer<n>.sae.pt`, one file a layer.

TopK: W_enc (F, D), W_dec (D, F), b_enc, b_dec, which is not subtracted from the input. k is in no file: the repository's
name ends in it (SAE-Res-Qwen3-1.7B-Base-W32K-L0_50), and so has to end the folder's. Shapes: D d_in, F d_sae.
"""

import re
from pathlib import Path

from saelight.convert import origin
from saelight.convert.files_of_tensors import Tensors, torch_file
from saelight.convert.format import Format, Layout, from_parts
from saelight.convert.parts import Parts, make
from saelight.errors import UserError
from saelight.saes.provenance import Provenance

_FILE = re.compile(r"layer(\d+)\.sae\.pt")


def _is_one(path: Path) -> bool:
    return bool(_FILE.fullmatch(path.name)) and path.is_file()


def _read(path: Path) -> Parts:
    match, place = _FILE.fullmatch(path.name), str(path.absolute().parent)
    assert match is not None  # as `_is_one` has seen
    if not (ks := re.findall(r"L0_(\d+)", place)):
        raise UserError(f"{path}: k is told by the folder's name alone: call it as its repository, ending in L0_<k>")
    file = Tensors(torch_file(path), path)
    d_sae, d_in = file.shape("W_enc")
    tensors = {
        "W_enc": file.take("W_enc", d_sae, d_in).T,
        "W_dec": file.take("W_dec", d_in, d_sae).T,
        "b_enc": file.take("b_enc", d_sae),
        "b_dec": file.take("b_dec", d_in),
    }
    file.nothing_left()
    model = re.search(r"SAE-Res-(.+?)-W\d+K", place)
    facts = {"model": f"Qwen/{model[1]}" if model else None, "context": 1024}
    return Parts(
        config=make("TopK", d_sae=d_sae, k=int(ks[-1]), decoder="unit"),
        d_in=d_in,
        tensors=tensors,
        subtracts_b_dec=False,
        provenance=Provenance(
            name=f"layer{match[1]}", source=origin.source("qwen_scope", facts, f"blocks.{match[1]}.hook_resid_post")
        ),
        where=path,
    )


_SEVERAL = "layer*.sae.pt"
_LAYOUT = Layout((_SEVERAL,), is_file=True)
FORMAT = Format(name="qwen_scope", is_one=_is_one, layouts=(_LAYOUT,), read=from_parts(_read), several=_SEVERAL)
