"""All that the page shows, as plain data: what `page.py` embeds as JSON, and `assets/` draws."""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from saelight.report.curves import LOG, read_curve
from saelight.report.gathered import Gathered, about
from saelight.report.matched import LEAST, NEAR, Measured, relative
from saelight.report.metric_words import WORDS, word
from saelight.report.octaves import TIE, best_by_octave
from saelight.report.sae_latents import LARGEST, has_latents, latents_of
from saelight.report.sae_row import SAERow
from saelight.sweep.show.fronts import front
from saelight.version import version

_ALL_POINTS, _MOST_POINTS, _LEAST_POINTS = 60_000, 300, 24
"""Points of all SAEs' curves, and of one."""
_LONGEST = 2_000
"""Characters of any text that a run says."""
_DIGITS = 5
_TRAINED = ("finished", "running", "waiting")
_NOT_COMPARED = {
    "class_path",
    "sparsity",
    "k",
    "target_l0",
    "seed",
    "seed_everything",
    "callbacks",
    "logger",
    "name",
    "folder",
}
"""Settings (their last part) that the front is about, that are chance, or that change nothing."""
_MOST_PANELS, _MOST_CHOICES = 12, 12


def document(sources: Sequence[Gathered], whole: bool = True) -> dict[str, Any]:
    """The page's data.

    Args:
        sources: One folder, or two that are compared.
        whole: With curves and latents; a server gives those apart, where they are looked at.
    """
    rows = [(i, row) for i, source in enumerate(sources) for row in source.rows]
    most = max(_LEAST_POINTS, min(_MOST_POINTS, _ALL_POINTS // max(1, len(rows))))
    saes = [_sae(number, i, row, most if whole else 0) for number, (i, row) in enumerate(rows)]
    known = [(sae, row) for sae, (_, row) in zip(saes, rows, strict=True) if whole and has_latents(row.inside("saes"))]
    for sae, row in known:
        sae["latents"] = latents_of(row.run / "saes" / row.name, LARGEST / len(known))
    metrics = [key for key in WORDS if any(key in sae["metrics"] for sae in saes)]
    metrics += sorted({key for sae in saes for key in sae["metrics"]} - WORDS.keys())
    return {
        "title": " and ".join(dict.fromkeys(source.name for source in sources)),
        "made": time.strftime("%Y-%m-%d %H:%M %Z"),
        "version": version(),
        "sources": [_source(source) for source in sources],
        "metrics": {key: word(key)._asdict() for key in metrics},
        "saes": saes,
        "fronts": {key: _fronts(saes, key, len(sources)) for key in metrics if key != "l0" and word(key).better},
        "tie": TIE,
        "best": _best(saes, len(sources)),
        "winners": [_winner(saes, i, source.metric) for i, source in enumerate(sources)],
        "sensitivity": {"near": NEAR, "least": LEAST, "panels": _panels([row for _, row in rows], saes)},
    }


def _source(source: Gathered) -> dict[str, Any]:
    return {
        "name": text(source.name),
        "kind": source.kind,
        "path": text(os.path.realpath(source.path)),
        "states": Counter(text(row.state) for row in source.rows),
        "about": {key: text(value) for key, value in about(source.rows).items() if value is not None},
        "metric": {key: text(value) for key, value in source.metric.items()},
        "problems": list(map(text, source.problems)),
        "failed_trials": [[text(trial), text(why)] for trial, why in source.failed_trials.items()],
    }


def _sae(number: int, source: int, row: SAERow, most: int) -> dict[str, Any]:
    log, export = row.inside("logs"), row.inside("saes")
    metrics = {str(key): finite(value) for key, value in row.metrics.items()}
    tokens, seconds = finite(row.tokens), finite(row.seconds)
    return {
        "id": number,
        "source": source,
        "names": list(map(text, row.names)),
        "group": row.group,
        "state": text(row.state),
        "reason": None if row.reason is None else text(row.reason),
        "ended": row.state not in _TRAINED,
        "variant": text(row.variant),
        "d_sae": finite(row.d_sae),
        "target": finite(row.target_l0),
        "lr": finite(row.setting("sae.lr")),
        "batch": finite(row.batch_size),
        # JavaScript's numbers are exact to 2⁵³ only.
        "seed": None if row.seed is None else text(row.seed),
        "metrics": metrics,
        "loss": finite(row.loss),
        "steps": finite(row.steps),
        "of_steps": finite(row.of_steps),
        "tokens": tokens,
        "seconds": seconds,
        "speed": finite(tokens / seconds) if tokens and seconds else None,
        "device": None if row.device is None else text(row.device),
        "eta": finite(row.eta),
        "folder": text(os.path.realpath(export)) if export is not None and (export / "config.json").is_file() else None,
        "settings": {text(key): shown(value) for key, value in row.settings.items()},
        "fields": {text(key): shown(value) for key, value in row.fields.items()},
        "curve": None if log is None or not most else _curve(read_curve(log / LOG, most)),
        "density": _density(row.density),
        "latents": None,
    }


def _fronts(saes: list[dict[str, Any]], metric: str, n_sources: int) -> list[dict[str, Any]]:
    """By source: the ids of the finished SAEs on the front of all, and on each variant's own."""
    fronts = []
    for source in range(n_sources):
        own = [sae for sae in _placed(saes, metric) if sae["source"] == source]
        kinds = dict.fromkeys(sae["variant"] for sae in own)
        fronts.append(
            {
                "all": _front_ids(own, metric),
                "variants": {kind: _front_ids([sae for sae in own if sae["variant"] == kind], metric) for kind in kinds},
            }
        )
    return fronts


def _front_ids(saes: list[dict[str, Any]], metric: str) -> list[int]:
    return [saes[i]["id"] for i in front([_place(sae, metric) for sae in saes], TIE)]


def _placed(saes: list[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """The finished SAEs that have an L0 above 0 and the metric."""
    finished = [sae for sae in saes if sae["state"] == "finished" and (sae["metrics"].get("l0") or 0) > 0]
    return [sae for sae in finished if sae["metrics"].get(metric) is not None]


def _place(sae: dict[str, Any], metric: str) -> tuple[float, float]:
    value = sae["metrics"][metric]
    # What is good when high is at best 1, as an explained variance.
    return sae["metrics"]["l0"], value if word(metric).better == "low" else 1 - value


def _best(saes: list[dict[str, Any]], n_sources: int) -> list[dict[str, Any]]:
    """By octave of L0: the id of each source's finished SAE of the least FVU below 1, None where it has none there."""
    by_source = []
    for source in range(n_sources):
        own = [sae for sae in _placed(saes, "fvu") if sae["source"] == source and sae["metrics"]["fvu"] < 1]
        best = best_by_octave([_place(sae, "fvu") for sae in own])
        by_source.append({n: own[i]["id"] for n, i in best.items()})
    return [
        {"from": 2.0**n, "to": 2.0 ** (n + 1), "ids": [best.get(n) for best in by_source]}
        for n in sorted({n for best in by_source for n in best})
    ]


def _winner(saes: list[dict[str, Any]], source: int, metric: dict[str, str]) -> int | None:
    """The finished SAE that is best by what its sweep judges by; None where none has that metric."""
    key, sign = metric["name"].removeprefix("val/"), -1 if metric["goal"] == "maximize" else 1
    finished = [sae for sae in saes if sae["source"] == source and sae["state"] == "finished"]
    own = [sae for sae in finished if sae["metrics"].get(key) is not None]
    return min(own, key=lambda sae: sign * sae["metrics"][key])["id"] if own else None


def _panels(rows: list[SAERow], saes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By setting that varies within a variant: (id, value, FVU over that of its like at the same L0)."""
    compared = [(row, sae) for row, sae in zip(rows, saes, strict=True) if sae in _placed([sae], "fvu")]
    ratios = relative([Measured(f"{sae['source']} {sae['variant']}", *_place(sae, "fvu")) for _, sae in compared])
    known = [(row, sae, ratio) for (row, sae), ratio in zip(compared, ratios, strict=True) if ratio is not None]
    keys = dict.fromkeys(key for row, _, _ in known for key in (*row.settings, *(f"sae.{name}" for name in row.fields)))
    panels = []
    for key in keys:
        if key.rpartition(".")[2] in _NOT_COMPARED:
            continue
        points = [(sae["id"], sae["variant"], choice(row.setting(key)), round(ratio, 4)) for row, sae, ratio in known]
        points = [point for point in points if point[2] is not None]
        if len(set(point[1:3] for point in points)) > len(set(point[1] for point in points)):
            panels.append({"setting": text(key), "points": [(number, value, ratio) for number, _, value, ratio in points]})
    readable = [p for p in panels if all_numbers(p) or len({value for _, value, _ in p["points"]}) <= _MOST_CHOICES]
    return readable[:_MOST_PANELS]


def all_numbers(panel: dict[str, Any]) -> bool:
    """Whether the values of a panel's setting are a scale."""
    return all(isinstance(value, float) for _, value, _ in panel["points"])


def choice(value: Any) -> float | str | None:
    """A setting's value on an axis: a number, or the text of a choice."""
    if isinstance(value, bool | str):
        return text(value)
    return finite(value) if isinstance(value, int | float) or value is None else shown(value)


def _curve(curve: dict[str, list[float | None]] | None) -> dict[str, list[float | None]] | None:
    return curve and {key: [finite(value) for value in values] for key, values in curve.items()}


def _density(density: Any) -> dict[str, Any] | None:
    """A histogram of log10 firing frequencies, if it is one."""
    if not isinstance(density, dict) or not isinstance(density.get("counts"), list):
        return None
    numbers = [density.get("lowest"), density.get("per_decade"), density.get("silent"), *density["counts"]]
    if not all(isinstance(number, int) and not isinstance(number, bool) and abs(number) < 2**53 for number in numbers):
        return None
    return {key: density[key] for key in ("lowest", "per_decade", "silent", "counts")} if density["per_decade"] > 0 else None


def finite(value: Any) -> float | None:
    """A finite number, in the few digits that a page shows; None for whatever else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(number):
        return None
    return number if number.is_integer() and abs(number) < 1e15 else float(f"{number:.{_DIGITS}g}")


def text(value: Any) -> str:
    """Text of any length, cut where it is longer than anybody reads."""
    said = str(value)
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"


def shown(value: Any) -> str:
    """A setting as text."""
    try:
        return text(value if isinstance(value, str) else json.dumps(value, default=str))
    except (ValueError, RecursionError):
        return "(too deep to show)"
