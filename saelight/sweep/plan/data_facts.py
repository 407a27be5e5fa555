"""What a run's config says about its data and its length, found out without building a data module."""

import hashlib
from typing import Any, NamedTuple

from saelight.errors import UserError
from saelight.sweep.plan.signatures import default_of

_PATHS = ("path", "val_path", "target_path", "target_val_path")
_NOT_TRAINED_ON = {*_PATHS, "val_batch_size", "predict_rows"}
"""Arguments that change no weight: checksums stand for the paths."""


_BUDGET = dict.fromkeys(("max_epochs", "max_steps", "min_epochs", "min_steps", "limit_train_batches")) | {
    "precision": "32-true",
    "accumulate_grad_batches": 1,
}
"""What decides how long and how precisely a run trains, with Lightning's defaults."""
_VALIDATIONS = ("val_check_interval", "check_val_every_n_epoch")


class DataFacts(NamedTuple):
    """The data of one run."""

    d_in: int | None
    """Width of an activation; None for a data module that is not saelight's."""
    d_out: int | None
    """Width of a target, of transcoders."""
    rows: int | None
    """Rows trained on in an epoch."""
    batch_size: int
    row_bytes: int
    """Bytes of a row as it is stored, targets included; 0 where they are not known."""
    identity: dict[str, Any]
    """All that training depends on: checksums in place of paths."""
    missing: str | None = None
    """Why the data cannot be read yet."""


def read_data(config: dict[str, Any]) -> DataFacts:
    """The facts of the `data` section of a config."""
    data = config.get("data") or {}
    kind = str(data.get("class_path", "ActivationDataModule")).rpartition(".")[2]
    given = data.get("init_args") or {}
    used = {key: value for key, value in given.items() if key not in _NOT_TRAINED_ON}
    identity = {"class_path": kind, "init_args": used}
    batch_size = given.get("batch_size", default_of(data, "batch_size", 1))
    if kind == "SyntheticDataModule":
        rows, cap = given.get("rows", default_of(data, "rows", 0)), given.get("max_samples")
        d_in = given.get("d_in", default_of(data, "d_in", None))
        return DataFacts(d_in, None, min(rows, cap or rows), batch_size, 4 * (d_in or 0), identity)
    if kind != "ActivationDataModule":
        return DataFacts(None, None, None, batch_size, 0, identity | {"init_args": given})
    try:
        found = {key: _shards(given[key]) for key in _PATHS if given.get(key) is not None}
    except UserError as error:
        where = {key: given[key] for key in _PATHS if key in given}
        return DataFacts(None, None, None, batch_size, 0, identity | {"missing": where}, str(error))
    if "path" not in found:
        return DataFacts(None, None, None, batch_size, 0, identity, "data.path is not set: name a folder of shards")
    rows = found["path"]["rows"]
    if "val_path" not in found:
        rows = round(rows * (1 - given.get("val_fraction", default_of(data, "val_fraction", 0.0))))
    cap = given.get("max_samples")
    identity["checksums"] = {key: facts["checksum"] for key, facts in found.items()}
    inputs, target = found["path"], found.get("target_path")
    row_bytes = inputs["row_bytes"] + (target["row_bytes"] if target else 0)
    return DataFacts(inputs["d_in"], target and target["d_in"], min(rows, cap or rows), batch_size, row_bytes, identity)


def _shards(path: str) -> dict[str, Any]:
    from saelight.data.shards.reader import DTYPES, read_metadata

    metadata = read_metadata(path)
    joined = "".join(entry["sha256"] for entry in metadata["shards"])
    return {
        "d_in": metadata["d_in"],
        "rows": metadata["rows"],
        "row_bytes": metadata["d_in"] * DTYPES[metadata["dtype"]].itemsize,
        "checksum": hashlib.sha256(joined.encode()).hexdigest()[:32],
    }


def training_identity(config: dict[str, Any]) -> dict[str, Any]:
    """What of a run's config beside its data decides its weights: budget, precision, and callbacks that end SAEs."""
    trainer, model = config.get("trainer") or {}, config.get("model") or {}
    identity = {key: trainer.get(key, default) for key, default in _BUDGET.items()}
    callbacks = trainer.get("callbacks") or []
    fates = [c for c in (callbacks if isinstance(callbacks, list) else [callbacks]) if _ends_saes(c)]
    if fates:
        # They act at validations.
        identity |= {"callbacks": fates} | {key: trainer.get(key) for key in _VALIDATIONS}
    return identity | {"max_tokens": model.get("max_tokens")}


def _ends_saes(callback: Any) -> bool:
    path = callback.get("class_path", "") if isinstance(callback, dict) else str(callback)
    return path.rpartition(".")[2] in ("StopEarly", "Halving", "PruneTrials")


def tokens(config: dict[str, Any], facts: DataFacts) -> int | None:
    """Tokens that a run trains on, as far as its config tells."""
    trainer, model = config.get("trainer") or {}, config.get("model") or {}
    per_step = facts.batch_size * (trainer.get("accumulate_grad_batches") or 1)
    limits = []
    if facts.rows is not None and trainer.get("max_epochs") not in (None, -1):
        limits.append(facts.rows // facts.batch_size * facts.batch_size * trainer["max_epochs"])
    if trainer.get("max_steps") not in (None, -1):
        limits.append(trainer["max_steps"] * per_step)
    if model.get("max_tokens") is not None:
        limits.append(model["max_tokens"])
    return min(limits, default=None)
