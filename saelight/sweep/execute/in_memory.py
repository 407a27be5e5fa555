"""A sweep in this process, from Python: points in, trained SAEs out, nothing written."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saelight.errors import UserError
from saelight.parsing import yaml_files
from saelight.sweep.plan.configs import check_sections
from saelight.sweep.plan.entry import Entry
from saelight.sweep.plan.groups import split
from saelight.sweep.plan.points import expand
from saelight.sweep.plan.spec import Sweep, listed
from saelight.sweep.store.sweep_folder import config_of

if TYPE_CHECKING:
    from saelight.saes import SAE


class Trained(NamedTuple):
    """One point of a sweep after training."""

    name: str
    sae: "SAE"
    """As `saelight.load` gives it: on the CPU, in eval mode, for the model's own activations."""
    row: dict[str, Any]
    """Config, seed, metrics, steps, tokens and seconds: what a run writes as its results."""


def run(
    points: list[dict[str, Any]],
    base: str | Path | dict[str, Any] | None = None,
    *,
    max_saes: int | None = None,
    progress: bool = False,
) -> list[Trained]:
    """Train `points` in groups that share batches, one group after the other.

    Args:
        points: Nested or dotted settings, as `{"sae": {"class_path": "TopK", "k": 32}, "data.batch_size": 512}`; `name`
            is free to give.
        base: A config, a file or a mapping, whose `model.saes` is replaced. Without one the points name data and trainer.
        max_saes: Most SAEs in one group.
        progress: Show a bar for each group.

    Returns:
        One `Trained` per point, in their order. Points that are the same SAE share one.

    Raises:
        UserError: for a point that does not fit its classes.
    """
    config = yaml_files.read(base) if isinstance(base, str | Path) else base or {}
    if not points:
        raise UserError("sweep.run: no points")
    check_sections(config, "sweep.run: base")
    sweep = Sweep(file=Path("points"), name="points", base=config, root=listed(points, "points"))
    from saelight.sweep.plan.resolve import resolve  # torch

    drafts, _ = expand(sweep)
    resolved = resolve(sweep, drafts)
    if resolved.missing:
        raise UserError(resolved.missing[0])
    trained: dict[str, Trained] = {}
    for members in split(resolved.entries, max_saes, None):
        trained |= _train(config_of(resolved.run_configs[members[0].run_config], members), members, progress)
    return [trained[point.name]._replace(name=point.name) for point in drafts]


def _train(config: dict[str, Any], members: list[Entry], progress: bool) -> dict[str, Trained]:
    from saelight.run.build import build

    config["trainer"] = config.get("trainer", {}) | {"enable_progress_bar": progress}
    trainer, bank, data = build(config)
    trainer.fit(bank, datamodule=data)
    for sae in bank.saes:
        sae.cpu().eval().requires_grad_(False)
        sae.fold_for_use(bank.normalisation, bank.target_normalisation)
    return {
        name: Trained(name, sae, row)
        for sae, row, entry in zip(bank.saes, trainer.results, members, strict=True)
        for name in entry.names
    }
