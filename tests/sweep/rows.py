"""Plausible results of sweeps that were never run."""

import math
import random
from itertools import product

PENALISED = ("ReLU", "HardConcrete", "Gated", "GatedHardConcrete")
GRID = {
    "sae.class_path": PENALISED,
    "sae.lr": (1e-4, 3e-4, 1e-3),
    "sae.expansion": (8, 16, 32, 64),
    "sae.sparsity": (0.01, 0.03, 0.1, 0.3),
}
SETTINGS = {
    "sae.lr": (1e-3, 1e-2, 3e-2),
    "data.batch_size": (512, 1024, 4096),
    "sae.encoder_scale": (0.1, 0.5, 1.0),
    "sae.tied_init": (True, False),
}


def make_row(i: int, settings: dict, rng: random.Random, group: str = "group-000", **changes) -> dict:
    """A finished point: the sparser the less it explains; better with the best learning rate, and with width."""
    fields = {"lr": 3e-4, "expansion": 16, "d_sae": None, "sparsity": 0.1, "tied_init": True, "encoder_scale": 1.0}
    fields |= {key.removeprefix("sae."): value for key, value in settings.items() if key.startswith("sae.")}
    kind = fields.pop("class_path", "Gated")
    quality = 1 + 0.22 * (PENALISED.index(kind) if kind in PENALISED else 1.5)
    l0 = 4 * fields["sparsity"] ** -0.65 * math.exp(rng.gauss(0, 0.18))
    off = abs(math.log10(fields["lr"] / 4e-4)) + abs(math.log10(fields["encoder_scale"])) * 0.5
    fvu = min(1.2, 1.6 / quality * l0**-0.5 * fields["expansion"] ** -0.15 * math.exp(0.6 * off + rng.gauss(0, 0.08)))
    batch = settings.get("data.batch_size", 1024)
    speed = 60_000 * (batch / 1024) ** 0.4 / (fields["expansion"] / 16) ** 0.3 * math.exp(rng.gauss(0, 0.05))
    return {
        "name": f"point-{i}",
        "hash": f"{i:08x}",
        "group": group,
        "state": "finished",
        "reason": None,
        "error": None,
        "seed": i,
        "variant": kind,
        "d_sae": 64 * fields["expansion"],
        "config": {"class_path": f"saelight.saes.{kind.lower()}.{kind}", "init_args": fields},
        "settings": settings | {"sae.class_path": kind},
        "metrics": {"l0": l0, "fvu": fvu, "dead": 0.02, "silhouette": None},
        "loss": 1.3 * fvu,
        "steps": 20_000,
        "tokens": 20_000 * batch,
        "seconds": 20_000 * batch / speed,
        "tokens_per_second": speed,
        "device": "cpu",
        "folder": f"saes/point-{i}",
    } | changes


def sweep(n: int, axes: dict | None = None, seed: int = 0, **changes) -> list[dict]:
    """`n` points of a grid over `axes`, gone through again, with noise, when it is smaller."""
    rng, axes = random.Random(seed), axes or GRID
    grid = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    rows = [make_row(i, grid[i % len(grid)], rng, **changes) for i in range(n)]
    share_runs(rows)
    return rows


def share_runs(rows: list[dict], size: int = 48) -> None:
    """Points of one batch size train together, `size` to a group, in the time and at the speed of their first."""
    groups: dict = {}
    for row in rows:
        batch = row["settings"].get("data.batch_size")
        number = sum(1 for seen in groups.values() for r in seen if r["settings"].get("data.batch_size") == batch) // size
        groups.setdefault((batch, number), []).append(row)
    for i, group in enumerate(groups.values()):
        speed = group[0]["tokens_per_second"] / len(group) ** 0.7
        for row in group:
            row |= {"group": f"group-{i:03}", "tokens_per_second": speed, "seconds": row["tokens"] / speed}
