"""The part of a bank that ends the training of single SAEs, and says how each one's went."""

from typing import Any

from saelight.bank.evaluating import Evaluating
from saelight.bank.isolation import Quarantine
from saelight.bank.outcome import Outcome
from saelight.bank.position import Position
from saelight.bank.sae_callback import SAECallback
from saelight.bank.trainer_attributes import undeclared


class Ending(Evaluating):
    """A module of named SAEs that train until they are quarantined or retired, or the run ends."""

    def begin_ending(self) -> None:
        """All SAEs train."""
        self.quarantine = Quarantine(len(self.saes))
        self.retired: dict[int, Outcome] = {}
        """The SAEs whose training was ended by `retire`."""
        self.position = Position()

    @property
    def inactive(self) -> set[int]:
        """The SAEs that train no more: quarantined or retired."""
        return self.quarantine.stopped | self.retired.keys()

    def read_quarantine(self) -> None:
        """Stop the SAEs that were marked since the last reading, and call the callbacks."""
        for i in self.quarantine.newly_stopped():
            self.saes[i].zero_grad(set_to_none=True)
            self._notify("on_quarantine", self.names[i], self.quarantine.describe(i))
        self._stop_when_none_trains()

    def retire(self, name: str, reason: str, state: str = "retired") -> None:
        """End the training of one SAE, for good, and call the callbacks; the others go on. Call it on every rank alike.
        `state` (`retired`, or `pruned` of a search's trial) and `reason`, with its step, are kept in results."""
        i = self.names.index(name)
        if i not in self.inactive:
            self.retired[i] = Outcome(state, reason)
            self.saes[i].zero_grad(set_to_none=True)
            self._notify("on_retire", name, reason)
            self._stop_when_none_trains()

    def outcome(self, name: str) -> Outcome | None:
        """How the SAE's training was ended before the run's; None while it trains, or if it was not."""
        i = self.names.index(name)
        if i in self.quarantine.stopped:
            return Outcome("quarantined", self.quarantine.describe(i))
        return self.retired.get(i)

    def result(self, name: str) -> Outcome:
        """What has become of the SAE in a fit that has ended."""
        return self.outcome(name) or self.position.outcome()

    def _stop_when_none_trains(self) -> None:
        if len(self.inactive) == len(self.saes):
            self.trainer.should_stop = True

    def _notify(self, hook: str, *args: Any) -> None:
        for callback in undeclared(self.trainer).callbacks:
            if isinstance(callback, SAECallback):
                getattr(callback, hook)(self.trainer, self, *args)
