"""A search's study: Optuna over one journal file, which any number of processes and machines may share."""

import os
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
        UserError: Optuna, an extra, is missing, or the file is no journal.
    """
    return _open(_storage(journal), name, pruner, direction, seed)


class Trials:
    """The trials of a study that exists, by number, to report to.

    Args:
        journal, name, pruner: As `open_study` takes them.
    """

    def __init__(self, journal: str | Path, name: str, pruner: dict[str, Any]) -> None:
        self._storage = _storage(journal)
        self._id = self._storage.get_study_id_from_name(name)
        self._study = _open(self._storage, name, pruner)

    def __getitem__(self, number: int) -> "optuna.Trial":
        trial = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
        return _optuna().Trial(self._study, trial)


def _storage(journal: str | Path) -> "optuna.storages.JournalStorage":
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not os.access(Path(journal).parent, os.W_OK):
        # Optuna would wait for its lock.
        raise UserError(f"{journal}: its folder is not there, or cannot be written to: give --journal another file")
    try:
        return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{journal} is no search's journal, or is damaged ({error}): give --journal another file") from None


def _open(
    storage: "optuna.storages.BaseStorage",
    name: str,
    pruner: dict[str, Any] | None,
    direction: str | None = None,
    seed: int | None = None,
) -> "optuna.Study":
    optuna = _optuna()
    kind = optuna.pruners.NopPruner() if pruner is None else optuna.pruners.HyperbandPruner(**pruner)
    # Trials that train now count as poor ones, so that those asked for together are not all alike.
    sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    if direction is None:
        return optuna.load_study(study_name=name, storage=storage, pruner=kind, sampler=sampler)
    return optuna.create_study(
        study_name=name, storage=storage, pruner=kind, sampler=sampler, direction=direction, load_if_exists=True
    )


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("method bayes searches with Optuna: pip install 'saelight[search]'") from None
    return optuna
