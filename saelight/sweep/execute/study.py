"""A search's study: Optuna over one journal file, which any number of processes and machines may share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelight.errors import UserError

if TYPE_CHECKING:
    import optuna


def open_study(
    journal: str | Path,
    name: str,
    pruner: dict[str, Any] | None = None,
    direction: str | None = None,
    seed: int | None = None,
) -> "optuna.Study":
    """The study in a journal file, made on first use.

    Args:
        journal: The file. Its lock is made by a symbolic link, which network file systems keep too.
        name: The study's name.
        pruner: Settings of Hyperband; None for no pruning.
        direction: `minimize` or `maximize`; None for a study that exists.
        seed: Of the sampler.

    Raises:
        UserError: Optuna, an extra, is missing.
    """
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    kind = optuna.pruners.NopPruner() if pruner is None else optuna.pruners.HyperbandPruner(**pruner)
    # Trials that train now count as poor ones, so that those asked for together are not all alike.
    sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    if direction is None:
        return optuna.load_study(study_name=name, storage=storage, pruner=kind, sampler=sampler)
    return optuna.create_study(
        study_name=name, storage=storage, pruner=kind, sampler=sampler, direction=direction, load_if_exists=True
    )


def trial_of(study: "optuna.Study", number: int) -> "optuna.Trial":
    """The trial of this number, to report to."""
    optuna = _optuna()
    return optuna.Trial(study, study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


class OptunaChooser:
    """Draws a point's values by asking a trial."""

    def __init__(self, trial: "optuna.Trial") -> None:
        self._trial = trial

    def choice(self, key: str, n: int) -> int:
        return self._trial.suggest_categorical(key, list(range(n)))

    def number(self, key: str, low: float, high: float, *, log: bool, step: float | None, whole: bool) -> float:
        if whole:
            return self._trial.suggest_int(key, int(low), int(high), log=log)
        return self._trial.suggest_float(key, low, high, log=log, step=None if log else step)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("method bayes searches with Optuna: pip install 'saelight[search]'") from None
    return optuna
