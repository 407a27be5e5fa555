"""Names of points: short, of what varies, and safe as folder names."""

import hashlib
import json
import re
from collections import defaultdict
from typing import Any

LONGEST = 80
_SHORT = {
    "sae.expansion": "x",
    "sae.d_sae": "d",
    "sae.lr": "lr",
    "sae.sparsity": "s",
    "sae.target_l0": "l0-",
    "sae.k": "k",
    "sae.aux_coefficient": "a",
    "sae.initial_beta": "b",
    "data.batch_size": "batch",
    "trainer.max_epochs": "epochs",
    "trainer.max_steps": "steps",
}
_FIRST = ("sae.class_path", "sae.expansion", "sae.d_sae", "sae.lr")
Drafts = list[tuple[tuple[str, ...], dict[str, Any]]]


def name_points(drafts: Drafts) -> list[str]:
    """A name for each (names of its branches, settings): those names, then the settings that vary among points of the same
    branch. Unique unless branch and settings are equal."""
    values: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    counts: dict[tuple[str, ...], int] = defaultdict(int)
    for prefix, settings in drafts:
        counts[prefix] += 1
        for key, value in settings.items():
            values[prefix][key].add(_key(value))
    first: dict[tuple[str, ...], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for prefix, settings in drafts:
        for key in settings:
            first[prefix][key] += 1
    names = []
    for prefix, settings in drafts:
        vary = [k for k in settings if len(values[prefix][k]) > 1 or first[prefix][k] < counts[prefix]]
        names.append(name_point(settings, vary, prefix))
    return _unique(names, drafts)


def name_point(settings: dict[str, Any], vary: list[str], prefix: tuple[str, ...] = ()) -> str:
    """The name of one point: those of its branches, then the settings that vary."""
    order = [k for k in _FIRST if k in vary] + [k for k in vary if k not in _FIRST]
    parts = [*prefix, *(_part(key, settings[key]) for key in order)] or ["sae"]
    return _safe("-".join(parts), settings)


def _unique(names: list[str], drafts: Drafts) -> list[str]:
    """Different points that came out with one name get a hash of their settings behind it."""
    owners: dict[str, set[str]] = defaultdict(set)
    for name, (_, settings) in zip(names, drafts, strict=True):
        owners[name.lower()].add(_key(settings))
    return [
        name if len(owners[name.lower()]) == 1 else _ended(name, settings)
        for name, (_, settings) in zip(names, drafts, strict=True)
    ]


def _part(key: str, value: Any) -> str:
    if key == "sae.class_path":
        words = str(value).rpartition(".")[2].replace("ReLU", "Relu").replace("TopK", "Topk")
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", words).lower()
    label = _SHORT.get(key, key.rpartition(".")[2])
    if isinstance(value, dict | list):
        return label + "-" + hashlib.sha256(_key(value).encode()).hexdigest()[:6]
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if "/" in text:
        # Of a path what tells it apart is its end.
        text = text.rstrip("/").rpartition("/")[2]
    return label + ("-" if label[-1:] != "-" and not re.match(r"[\d.-]", text) else "") + text


def _safe(name: str, settings: dict[str, Any]) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).lstrip(".") or "sae"
    return name if len(name) <= LONGEST else _ended(name, settings)


def _ended(name: str, settings: dict[str, Any]) -> str:
    digest = hashlib.sha256(_key(settings).encode()).hexdigest()[:8]
    return f"{name[: LONGEST - 9]}-{digest}"


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
