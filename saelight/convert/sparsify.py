"""sparsify: `cfg.json` and `sae.safetensors`, as its `SparseCoder.load_from_disk` reads them.

| saelight | tensors |
|---|---|
| TopK, Matryoshka over it | encoder.weight (F, D), encoder.bias (F), W_dec (F, D), b_dec (D); k in the config |
| TopK transcoders of equal widths | the same with `transcode`, W_skip (D, D) with `skip_connection`: y += x @ W_skipᵀ |

It selects the k largest of ReLU(z + bias) whatever the norms of the decoder's rows. Shapes: D d_in, F d_sae.
"""

import json
import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from saelight.convert import beside, origin
from saelight.convert.files_of_tensors import json_file, safetensors, value, whole
from saelight.convert.format import Format, Layout, from_parts
from saelight.convert.parts import Parts, make, ready, refused, rows_are_unit, variant
from saelight.errors import UserError
from saelight.saes.provenance import Provenance
from saelight.saes.sae import SAE

CONFIG, WEIGHTS, RUN = "cfg.json", "sae.safetensors", "config.json"
_HOOKPOINT = re.compile(r"(?:\w+\.)*(?:layers|h|layer|embed\w*|wte)(?:\.\w+)*")


def _is_one(path: Path) -> bool:
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def _read(folder: Path) -> Parts:
    where = folder / CONFIG
    config = json_file(where)
    if (activation := value(config, "activation", str, where, "topk")) != "topk" or config.get("signed"):
        raise UserError(f"{where}: activation {activation!r} has no variant here, only 'topk' without sign has")
    d_in, k = (whole(config, key, where) for key in ("d_in", "k"))
    file = safetensors(folder / WEIGHTS)
    d_sae, _ = file.shape("encoder.weight")
    stated = whole(config, "num_latents", where, 0) or whole(config, "expansion_factor", where, 0) * d_in
    if stated and stated != d_sae:
        raise UserError(f"{where} states {stated} latents, {WEIGHTS} has {d_sae}: they do not belong together")
    tensors = {
        "W_enc": file.take("encoder.weight", d_sae, d_in).T,
        "b_enc": file.take("encoder.bias", d_sae),
        "W_dec": file.take("W_dec", d_sae, d_in),
        "b_dec": file.take("b_dec", d_in),
    }
    if "W_skip" in file:
        tensors["W_skip"] = file.take("W_skip", d_in, d_in).T
    file.nothing_left()
    transcodes = value(config, "transcode", bool, where, False)
    return Parts(
        config=make("TopK", d_sae=d_sae, k=k, decoder="unit", skip="W_skip" in tensors),
        d_in=d_in,
        # One with a skip path that reconstructs x itself still has one.
        d_out=d_in if transcodes or "W_skip" in tensors else None,
        tensors=tensors,
        subtracts_b_dec=not transcodes,
        provenance=_provenance(folder, config, transcodes),
        where=folder / WEIGHTS,
        beside=folder / beside.NAME,
    )


def _provenance(folder: Path, config: dict[str, Any], transcodes: bool) -> Provenance:
    run: dict[str, Any] = {}
    if (file := folder.parent / RUN).is_file():
        run = json_file(file)
    if not isinstance(run.get("model"), str):
        run = {}  # of another program
    facts = {"model": run.get("model"), "dataset": run.get("dataset"), "context": run.get("ctx_len")}
    hook = folder.name if _HOOKPOINT.fullmatch(folder.name) else None
    source = origin.source("sparsify", facts, f"{hook}.input" if hook and transcodes else hook, None, config)
    target = origin.source("sparsify", facts, hook) if transcodes else None
    return Provenance(name=folder.name, source=source, target_source=target)


def _write(sae: SAE, provenance: Provenance, folder: Path) -> None:
    if variant(sae.config) != "TopK":
        raise refused(sae, "sparsify", "it has TopK only")
    if sae.d_out != sae.d_in:
        raise refused(sae, "sparsify", f"its targets have d_in's width, these {sae.d_out} in place of {sae.d_in}")
    sae, tensors = ready(sae)
    config = {
        "activation": "topk",
        "expansion_factor": max(1, round(sae.d_sae / sae.d_in)),
        "normalize_decoder": rows_are_unit(tensors["W_dec"]),
        "num_latents": sae.d_sae,
        "k": getattr(sae.config, "k"),  # noqa: B009 (through Matryoshka)
        "multi_topk": False,
        "skip_connection": "W_skip" in tensors,
        "transcode": sae.is_transcoder,
        "d_in": sae.d_in,
    }
    state = {
        "encoder.weight": tensors["W_enc"].T.contiguous(),
        "encoder.bias": tensors["b_enc"],
        "W_dec": tensors["W_dec"],
        "b_dec": tensors["b_dec"],
    }
    if "W_skip" in tensors:
        state["W_skip"] = tensors["W_skip"].T.contiguous()
    save_file(state, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    beside.write(sae, provenance, folder / beside.NAME)


_LAYOUT = Layout((CONFIG, WEIGHTS), (beside.NAME, f"../{RUN}"))
FORMAT = Format(name="sparsify", is_one=_is_one, layouts=(_LAYOUT,), read=from_parts(_read), write=_write)
