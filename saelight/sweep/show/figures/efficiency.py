"""What training cost: time against loss, and the throughput of each group."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from saelight.sweep.show.figures.canvas import (
    FVU,
    INK,
    MARKERS,
    SIZE,
    SMALL,
    Look,
    NothingToDraw,
    census,
    dot_area,
    key,
    legend,
    new_figure,
    scale,
    styled,
    wide,
)
from saelight.sweep.show.figures.selection import Row, about, finished, number, setting, variant, width

LOSS = "last training loss"


class _Trained(NamedTuple):
    row: Row
    seconds: float
    y: float


@styled()
def time_loss(rows: Sequence[Row]) -> Figure:
    """An SAE's share of its group's training time against FVU, or against the last training loss where no point has one."""
    look = Look(rows)
    label, done = _trained(rows)
    if not done:
        raise NothingToDraw("no finished point has a training time and an FVU or a loss")
    unit, size = _unit(max(point.seconds for point in done))
    left_out, shared = len(rows) - len(done), len({point.row.get("group") for point in done}) < len(done)
    figure = new_figure(
        f"Training time against {'FVU' if label == FVU else 'loss'}",
        [
            census(rows),
            f"{left_out} not finished or not measured left out" if left_out else "",
            "SAEs of a group train together: each is given an equal share of its time" if shared else "",
        ],
        SIZE,
    )
    axes = figure.subplots()
    shown = [name for name in look.variants if any(variant(point.row) == name for point in done)]
    for name in shown:
        own = [point for point in done if variant(point.row) == name]
        axes.scatter(
            [point.seconds / size for point in own],
            [point.y for point in own],
            s=dot_area(len(done)),
            marker=look.marker(name),
            color=look.colour(name),
            alpha=0.65,
            edgecolors="white",
            linewidths=0.4,
        )
    xs, ys = [point.seconds / size for point in done], [point.y for point in done]
    scale(axes, "x", xs, log=wide(xs))
    scale(axes, "y", ys, log=wide(ys))
    axes.set_xlabel(f"training time of the SAE ({unit})")
    axes.set_title(about(rows), loc="left", fontsize=8.5, color=SMALL)
    axes.set_ylabel(label)
    legend(figure, {"variant": [look.key(name) for name in shown]})
    return figure


def _trained(rows: Sequence[Row]) -> tuple[str, list[_Trained]]:
    """What training came to, as the axis has it, and the finished points that have it and their time."""
    groups = defaultdict(list)
    for row in rows:
        groups[row.get("group")].append(row)
    timed = [
        (row, seconds / (_saes(groups[row["group"]]) if row.get("group") else 1))
        for row in rows
        if finished(row) and (seconds := number(row, "seconds"))
    ]
    found = [_Trained(row, s, fvu) for row, s in timed if (fvu := number(row["metrics"], "fvu")) is not None]
    if found:
        return FVU, found
    return LOSS, [_Trained(row, s, loss) for row, s in timed if (loss := number(row, "loss")) is not None]


def _unit(seconds: float) -> tuple[str, int]:
    """The unit that suits a time, and its seconds."""
    if seconds > 3 * 3600:
        return "h", 3600
    return ("min", 60) if seconds > 300 else ("s", 1)


@styled()
def throughput(rows: Sequence[Row]) -> Figure:
    """Tokens per second, times the SAEs that each trains, of each group against its batch size or, if that is the same, the
    latents that it trained."""
    look, groups = Look(rows), defaultdict(list)
    for i, row in enumerate(rows):
        groups[row.get("group") or i].append(row)
    speeds = {name: speed for name, group in groups.items() if (speed := _speed(group))}
    if not speeds:
        raise NothingToDraw("no finished point has its tokens per second")
    label, xs = _first_that_varies({name: groups[name] for name in speeds})

    devices = list(dict.fromkeys(groups[name][0].get("device") for name in xs))
    series = defaultdict(list)
    for name, x in xs.items():
        first, kinds = groups[name][0], {variant(row) for row in groups[name]}
        who = variant(first) if len(kinds) == 1 else None
        series[who, first.get("device")].append((x, speeds[name]))
    left_out, on = len(groups) - len(xs), f" on {devices[0]}" if len(devices) == 1 else ""
    figure = new_figure(
        "Throughput",
        [
            f"{len(xs)} groups{on}: a group's SAEs read the same batches and share one mark, at the tokens of all of them",
            f"{left_out} not finished or not measured left out" if left_out else "",
        ],
        SIZE,
    )
    axes = figure.subplots()
    for (who, device), own in series.items():
        marker = MARKERS[devices.index(device) % len(MARKERS)]
        colour = look.colour(who) if who else INK
        axes.scatter(
            [x for x, _ in own],
            [y for _, y in own],
            s=dot_area(len(xs)),
            marker=marker,
            color=colour,
            alpha=0.8,
            edgecolors="white",
            linewidths=0.4,
            zorder=3,
        )
        middles = [(x, median([y for x_, y in own if x_ == x])) for x in sorted({x for x, _ in own})]
        if len(middles) > 2:  # two points make no trend
            axes.plot(*zip(*middles, strict=True), color=colour, alpha=0.5)
    x_values, y_values = list(xs.values()), [y for own in series.values() for _, y in own]
    scale(axes, "x", x_values, log=wide(x_values), ticks=sorted(set(x_values)))
    scale(axes, "y", y_values if wide(y_values) else [0, *y_values], log=wide(y_values))
    axes.set_xlabel(label)
    axes.set_ylabel("throughput (SAEs × tokens/s)")
    shown = [name for name in look.variants if any(name == who for who, _ in series)]
    mixed = [key("several variants", color=INK, marker="o")] if any(who is None for who, _ in series) else []
    marks = [key(str(device), color=INK, marker=MARKERS[i % len(MARKERS)]) for i, device in enumerate(devices)]
    legend(figure, {"variant": [look.key(name) for name in shown] + mixed, "device": marks if len(marks) > 1 else []})
    return figure


def _first_that_varies(groups: dict[Any, list[Row]]) -> tuple[str, dict[Any, float]]:
    """The first of `_AXES` that takes two values, and each group's place on it."""
    for label, x_of in _AXES.items():
        xs = {name: x for name, group in groups.items() if (x := x_of(group))}
        if len(set(xs.values())) > 1:
            return label, xs
    raise NothingToDraw("neither the batch size nor the latents of a group vary")


def _speed(group: Sequence[Row]) -> float | None:
    """Tokens per second of a group, as any of its finished points has it, of all its SAEs together."""
    speed = next((speed for row in group if finished(row) and (speed := number(row, "tokens_per_second"))), None)
    return speed and _saes(group) * speed


def _saes(group: Sequence[Row]) -> int:
    """The SAEs that trained together: points that are the same SAE have trained once."""
    return len({row["hash"] for row in group})


def _batch_size(group: Sequence[Row]) -> float | None:
    size = setting(group[0], "data.batch_size")
    return number({"size": size}, "size")


def _total(field: str) -> Callable[[Sequence[Row]], float | None]:
    """The sum of a group's widths, where all of them are given as `field`."""

    def total(group: Sequence[Row]) -> float | None:
        widths = [width(row) for row in group]
        known = [value for kind, value in filter(None, widths) if kind == field]
        return sum(known) if len(known) == len(group) else None

    return total


_AXES = {
    "batch size (tokens)": _batch_size,
    "latents trained together (sum of d_sae)": _total("d_sae"),
    "latents trained together (sum of expansions, × d_in)": _total("expansion"),
}
