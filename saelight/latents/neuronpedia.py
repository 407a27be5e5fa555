"""Latents for other viewers: SAEDashboard's folder of JSON, and the folder that Neuronpedia imports."""

import gzip
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from saelight.bars import bar
from saelight.convert.reading import load
from saelight.errors import UserError
from saelight.files import check_path, replacing
from saelight.latents.dashboards import feature
from saelight.latents.latents_format import WINDOW, sae_of
from saelight.latents.latents_reading import Latents, read

_BATCH = 128
"""Latents of a file, as there."""
_CREATOR = "clkht01d40000jv08hvalcvly"
"""Neuronpedia's own default; DEFAULT_CREATOR_ID in the environment names another."""


def export(sae: str | Path, out: str | Path, to: str, model: str | None = None, layer: str | None = None) -> str:
    """Write an SAE's latents for another viewer into a new folder, whole or not at all; what was written, in a line.

    Args:
        to: `saedashboard` (`batch-0.json`, …), or `neuronpedia` (`features/batch-0.jsonl.gz`, …, which it imports).
        model: The model's name there. Default: the data's.
        layer: Block and set, as `3-res-saelight`. Default: the block of the data's hook, and the SAE's name.

    Raises:
        UserError: for latents that are not there or have no contexts, and a folder that is.
    """
    latents, out = read(sae), Path(out)
    check_path(out, "the folder to make")
    if os.path.lexists(out):
        raise UserError(f"{out} exists: name another folder, or remove it")
    if not latents.has_tokens:
        raise UserError(f"{latents.path} has no contexts, which is what {to} shows: collect over data with token ids")
    names = _Names(latents, model, layer)
    batches = _batches(latents, names)
    with replacing(out) as partial:
        partial.mkdir()
        (_write_saedashboard if to == "saedashboard" else _write_neuronpedia)(partial, latents, names, batches)
    dead = int((latents.column("fired") == 0).sum())
    return f"{out}: {len(latents) - dead:,} latents as {names.source} of {names.model}, {dead:,} that never fire left out"


class _Names:
    """What model, block and set are called there."""

    def __init__(self, latents: Latents, model: str | None, layer: str | None) -> None:
        data = latents.meta["data"]
        package = re.match(r"\{package:(\w+)\}", data["model"] or "")
        self.model = model or (package[1] if package else (data["model"] or "model").rstrip("/").rpartition("/")[2])
        number = re.search(r"\.(\d+)(?:\.|$)", data["hook"] or "")
        wanted = layer or f"{number[1] if number else 0}-{re.sub(r'[^A-Za-z0-9-]+', '-', latents.name)}"
        if not (match := re.fullmatch(r"(\d+)-([A-Za-z0-9-]+)", wanted)):
            raise UserError(f"layer {wanted!r} is none there: write a block's number and a set's name, as 3-res-saelight")
        self.number, self.set, self.source = int(match[1]), match[2], wanted
        self.dataset = data["path"]


def _batches(latents: Latents, names: _Names) -> Iterator[list[dict[str, Any]]]:
    """The features of each file; a latent that never fires is in none."""
    W_dec_FD = load(sae_of(latents.path)).W_dec.detach().numpy()
    fired = latents.column("fired")
    for start in bar(iterable=range(0, len(latents), _BATCH), unit=" files", desc="export", delay=2):
        alive = [i for i in range(start, min(start + _BATCH, len(latents))) if fired[i]]
        yield [feature(latents, latents[i], W_dec_FD[i], names.dataset, WINDOW) for i in alive]


def _write_saedashboard(folder: Path, latents: Latents, names: _Names, batches: Iterable[list[dict[str, Any]]]) -> None:
    known = {"model_id": names.model, "layer": names.number, "sae_set": names.set}
    for n, features in enumerate(batches):
        _write_json(folder / f"batch-{n}.json", known | {"sae_id_suffix": None, "features": features})
    dead = [i for i, fired in enumerate(latents.column("fired").tolist()) if not fired]
    skipped = known | {"layer": str(names.number), "log_sparsity": None, "skipped_indexes": dead}
    _write_json(folder / "skipped_indexes.json", skipped)
    settings = known | {
        "sae_path": str(latents.path.parent),
        "n_prompts_total": latents.rows // WINDOW,
        "n_tokens_in_prompt": WINDOW,
        "n_features_at_a_time": _BATCH,
        "huggingface_dataset_path": names.dataset,
    }
    _write_json(folder / "run_settings.json", settings)


def _write_neuronpedia(folder: Path, latents: Latents, names: _Names, batches: Iterable[list[dict[str, Any]]]) -> None:
    creator = os.environ.get("DEFAULT_CREATOR_ID") or _CREATOR
    made = {"creatorId": creator, "createdAt": time.strftime("%Y-%m-%dT%H:%M:%S")}
    by = {"creatorName": "saelight", "visibility": "PUBLIC"}
    source_set = {"modelId": names.model, "name": names.set, "releaseName": names.set, "description": names.set}
    source = {
        "id": names.source,
        "modelId": names.model,
        "setName": names.set,
        "visibility": "PUBLIC",
        "dataset": names.dataset,
        "num_prompts": latents.rows // WINDOW,
        "num_tokens_in_prompt": WINDOW,
    }
    model = {"id": names.model, "instruct": False, "displayName": names.model, "displayNameShort": names.model}
    _write_lines(folder / "release.jsonl", [{"name": names.set, "description": names.set} | by | made])
    _write_lines(folder / "model.jsonl", [model | made | {"updatedAt": made["createdAt"]}])
    _write_lines(folder / "sourceset.jsonl", [source_set | by | made])
    _write_lines(folder / "source.jsonl", [source | made])
    for kind in ("features", "activations"):
        (folder / kind).mkdir()
    for n, features in enumerate(batches):
        place = made | {"modelId": names.model, "layer": names.source}
        _write_lines(folder / "features" / f"batch-{n}.jsonl.gz", (_feature(one, latents, place) for one in features))
        activations = (
            _activation(one, k, activation, place) for one in features for k, activation in enumerate(one["activations"])
        )
        _write_lines(folder / "activations" / f"batch-{n}.jsonl.gz", activations)


_PLACED = {"feature_index", "n_prompts_total", "n_tokens_in_prompt", "dataset", "activations"}
"""What of a feature is said elsewhere there."""


def _feature(one: dict[str, Any], latents: Latents, place: dict[str, Any]) -> dict[str, Any]:
    near = latents[one["feature_index"]].near
    strongest = max(max(activation["values"]) for activation in one["activations"])
    return (
        {key: value for key, value in one.items() if key not in _PLACED}
        | place
        | {
            "index": str(one["feature_index"]),
            "maxActApprox": strongest,
            "hasVector": True,
            "vectorLabel": None,
            "vectorDefaultSteerStrength": strongest,
            "hookName": latents.meta["data"]["hook"],
            "topkCosSimIndices": [other.latent for other in near],
            "topkCosSimValues": [round(other.cosine, 3) for other in near],
        }
    )


def _activation(one: dict[str, Any], k: int, activation: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    values, index = activation["values"], str(one["feature_index"])
    key = f"{place['modelId']}/{place['layer']}/{index}/{k}"
    return place | {
        "id": f"c{hashlib.sha256(key.encode()).hexdigest()[:24]}",
        "index": index,
        "tokens": activation["tokens"],
        "values": values,
        "maxValue": max(values),
        "maxValueTokenIndex": values.index(max(values)),
        "minValue": min(values),
        "binMin": activation["bin_min"],
        "binMax": activation["bin_max"],
        "binContains": activation["bin_contains"],
        "qualifyingTokenIndex": activation["qualifying_token_index"],
        "dataIndex": None,
        "dataSource": None,
        "dfaValues": [],
        "dfaTargetIndex": None,
        "dfaMaxValue": None,
        "lossValues": [],
        "logitContributions": None,
    }


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _write_lines(path: Path, lines: Iterable[Any]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text, compresslevel=5, mtime=0) if path.suffix == ".gz" else text)
