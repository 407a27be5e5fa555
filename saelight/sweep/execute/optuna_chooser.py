"""A point's values asked of Optuna."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna


class OptunaChooser:
    """Draws a point's values by asking a trial."""

    def __init__(self, trial: "optuna.Trial") -> None:
        self._trial = trial

    def choice(self, key: str, n: int) -> int:
        return self._trial.suggest_categorical(key, list(range(n)))

    def number(self, key: str, low: float, high: float, *, log: bool, whole: bool) -> float:
        if whole:
            return self._trial.suggest_int(key, int(low), int(high))
        return self._trial.suggest_float(key, low, high, log=log)

    def quantile(self, key: str) -> float:
        return self._trial.suggest_float(key, 0.0, 1.0)
