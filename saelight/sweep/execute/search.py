"""A search, `method: bayes`: trials asked of Optuna fill shared-batch groups, and their results are told back."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from saelight.callbacks.optuna_study import open_study
from saelight.errors import UserError
from saelight.sweep.execute.optuna_chooser import OptunaChooser
from saelight.sweep.execute.work import TOGETHER
from saelight.sweep.plan.entry import Entry
from saelight.sweep.plan.metric import key_of
from saelight.sweep.plan.points import Point, draw
from saelight.sweep.plan.spec import Sweep
from saelight.sweep.store.result_rows import collect
from saelight.sweep.store.sweep_folder import Group, Index, SweepFolder


class Search:
    """The groups of a search, made as there is room for them.

    Several runners, each with a folder of its own, may share a journal: `run_cap` counts the trials of all.

    Args:
        sweep: With `method: bayes` and a `run_cap`.
        folder: Of this runner.
        index: The folder's, which the search adds to.
        overrides: Settings of every trial.
        journal: The study's file. Default: in the folder.
        max_saes: Trials asked for at once.
        max_bytes: Of a group.
        groups: How many may run at once, though the launcher takes more: the later a trial is asked, the more it knows.
        kinds: Of the devices that train.
    """

    def __init__(
        self,
        sweep: Sweep,
        folder: SweepFolder,
        index: Index,
        overrides: dict[str, Any],
        journal: str | None,
        max_saes: int | None,
        max_bytes: int | None,
        groups: int,
        kinds: Sequence[str],
    ) -> None:
        assert sweep.run_cap is not None  # the session refuses a search without one
        self.run_cap = sweep.run_cap
        self.sweep, self.folder, self.index, self.overrides = sweep, folder, index, overrides
        self.together, self.max_bytes = max_saes or sweep.max_saes or TOGETHER, max_bytes
        self.journal = str(journal or folder.path / "journal.log")
        folder.path.mkdir(parents=True, exist_ok=True)
        self.study = open_study(self.journal, sweep.name, sweep.pruner, sweep.metric["goal"], sweep.seed)
        self._waiting = self._left_over()
        self._running: set[str] = set()
        self._most, self.kinds = groups, kinds

    @property
    def left(self) -> bool:
        """Whether there will be more groups."""
        return bool(self._waiting) or self._room() > 0

    def take(self, n: int) -> list[Group]:
        """Up to n more groups, of trials asked now."""
        groups: list[Group] = []
        while len(groups) < n and len(self._running) < self._most and self.left:
            if not self._waiting:
                self._waiting = self._ask()
            if self._waiting:
                groups.append(self._waiting.pop(0))
                self._running.add(groups[-1].id)
        return groups

    def ended(self, group: str, error: str | None) -> None:
        """Tell the study what came of a group's trials."""
        self._running.discard(group)
        members = set(self.index.groups[group].members)
        for row in collect(self.folder, self.index):
            if row["hash"] in members:
                self._tell(row["hash"], row, error)
        if self.index.failed:
            self.folder.commit(self.index)

    def failures(self) -> list[str]:
        return [f"trial-{int(number):04d}: {why}" for number, why in self.index.failed.items()]

    def summary(self) -> list[str]:
        """How many trials came to what, and the best of them."""
        trials = self.study.get_trials(deepcopy=False)
        counts = Counter(trial.state.name.lower() for trial in trials)
        lines = [f"{len(trials)} trials: {', '.join(f'{n} {state}' for state, n in counts.most_common())}"]
        if counts["complete"]:
            best = self.study.best_trial
            lines.append(f"best: trial-{best.number:04d}, {self.sweep.metric['name']} {best.value:.4g}")
        return lines

    def _room(self) -> int:
        return self.run_cap - len(self.study.get_trials(deepcopy=False))

    def _ask(self) -> list[Group]:
        """Trials for one group; several when they differ in more than their SAEs."""
        from saelight.sweep.plan.resolve import resolve  # torch

        entries = []
        for _ in range(min(self.together, self._room())):
            trial = self.study.ask()
            if trial.number >= self.run_cap:  # another runner was faster
                self.study.tell(trial.number, state=_states().FAIL)
                break
            trial.set_user_attr("folder", str(self.folder.path))
            draft = draw(self.sweep.root, OptunaChooser(trial))
            name = "-".join([f"trial-{trial.number:04d}", *draft.prefix])
            point = Point(name, draft.settings | self.overrides, trial.number)
            try:
                resolved = resolve(self.sweep, [point])
            except UserError as error:
                # An unlucky combination, such as k above d_sae: the search goes on without it.
                self._fail(trial.number, str(error))
                continue
            entries += self._entered(resolved.entries[0], resolved.run_configs, trial.number)
        groups = self.folder.add(
            self.index, entries, self.together, self.max_bytes, kinds=self.kinds, callbacks=self._callbacks
        )
        self.folder.commit(self.index)
        return groups

    def _entered(self, entry: Entry, run_configs: dict[str, Any], number: int) -> list[Entry]:
        """Note the trial in the index; the entry, unless it is there already."""
        self.index.trials.setdefault(entry.hash, []).append(number)
        if (known := self.index.entries.get(entry.hash)) is not None:
            known.names.append(entry.name)
            for row in collect(self.folder, self.index):
                if row["hash"] == entry.hash and row["state"] == "finished":
                    self._tell(entry.hash, row, None)
                    break
            return []
        self.index.entries[entry.hash] = entry
        self.index.run_configs |= run_configs
        self.index.wanted.append(entry.hash)
        return [entry]

    def _callbacks(self, members: list[Entry]) -> list[dict[str, Any]]:
        if self.sweep.pruner is None:
            return []
        trials = {entry.name: self.index.trials[entry.hash][0] for entry in members}
        return [
            {
                "class_path": "saelight.callbacks.PruneTrials",
                "init_args": {
                    "journal": self.journal,
                    "study": self.sweep.name,
                    "trials": trials,
                    "pruner": self.sweep.pruner,
                    "metric": self.sweep.metric["name"],
                },
            }
        ]

    def _tell(self, key: str, row: dict[str, Any], error: str | None) -> None:
        value = row["metrics"].get(key_of(self.sweep.metric))
        for number in self.index.trials.get(key, []):
            if self.study.get_trials(deepcopy=False)[number].state.is_finished():
                continue
            if row["state"] == "pruned":
                self.study.tell(number, state=_states().PRUNED)
            elif error is None and value is not None and math.isfinite(value):
                self.study.tell(number, value)
            else:
                self._fail(number, error or row["reason"] or f"it has no finite {self.sweep.metric['name']}")

    def _fail(self, number: int, why: str) -> None:
        self.study.tell(number, state=_states().FAIL)
        self.index.failed[str(number)] = why

    def _left_over(self) -> list[Group]:
        """Groups of an earlier runner of this folder that have not come to their end; what had, is told."""
        for group in self.index.groups.values():
            if self.folder.finished(group.id):
                self.ended(group.id, None)
        answered = {number for numbers in self.index.trials.values() for number in numbers}
        for trial in self.study.get_trials(deepcopy=False):
            lost = not trial.state.is_finished() and trial.number not in answered
            if lost and trial.user_attrs.get("folder") == str(self.folder.path):
                # A runner that was killed: nothing of it failed.
                self.study.tell(trial.number, state=_states().FAIL)
        return self.folder.unfinished(self.index)


def _states() -> Any:
    import optuna

    return optuna.trial.TrialState
