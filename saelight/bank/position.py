"""Where training stands, by the bank's own count of batches.

Lightning's loops infer from the order of their counters at which hook a checkpoint was written, and after a resume from an
epoch's last batch infer wrongly: a run resumed twice trains too long. So each checkpoint has the bank's count, Lightning's
counters are written anew from it, and a checkpoint in which they do not agree is refused.
"""

from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from saelight.bank.fit_length import FitLength
from saelight.bank.outcome import Outcome
from saelight.errors import UserError


class Position:
    """The batches that a fit has trained on, on each process, and the validations between them."""

    def __init__(self) -> None:
        self.length: FitLength | None = None
        """Of this fit; before it has begun, of the one that a checkpoint was written in."""
        self._start()

    def _start(self) -> None:
        self.batches = 0
        self.validated: int | None = None
        """The batches before the last validation."""
        self._validation_due = False
        self._fault: str | None = None
        """Why no training can go on from here."""

    @property
    def steps(self) -> int:
        """The optimizer steps taken."""
        return 0 if self.length is None else self.length.all_steps(self.batches)

    @property
    def is_validation_due(self) -> bool:
        """Whether this fit goes on from before a validation."""
        return self._validation_due and self.validated != self.batches

    def begin(self, length: FitLength, resumes: bool) -> None:
        """A fit of this length begins, or goes on. Raises `UserError` where it cannot go on."""
        if not resumes:
            self._start()
        elif self._fault is not None:
            raise UserError(self._fault)
        elif self.length is not None:
            for what, there, here in zip(FitLength._fields, self.length, length, strict=True):
                if what != "batches" and there != here:
                    raise UserError(
                        f"the checkpoint was made with {_WORDS[what]} {there:g}, and here it is {here:g}: resume with the "
                        "same, or start a new run from its SAEs by init_from: <run>/saes/<name>"
                    )
            if length.steps(self.batches) != self.length.steps(self.batches):
                raise UserError(
                    f"the checkpoint's training ended with a step of fewer batches than {length.accumulated}, and cannot be "
                    "made longer: start a new run from its SAEs by init_from: <run>/saes/<name>"
                )
        self.length = length

    def save(self, checkpoint: dict[str, Any], trainer: L.Trainer) -> dict[str, Any]:
        """The position as plain data; Lightning's counters in `checkpoint` are made to say the same."""
        assert self.length is not None
        if "loops" in checkpoint:  # not where weights alone are saved
            checkpoint["loops"]["fit_loop"] |= self._counters()
            checkpoint["epoch"], _ = self.length.epochs(self.batches)
        return {
            "batches": self.batches,
            "validated": self.validated,
            "validation_due": self._validation_follows(trainer),
            "length": list(self.length),
        }

    def load(self, state: dict[str, Any], checkpoint: dict[str, Any]) -> None:
        """Take over a saved position. Where the checkpoint's own parts disagree, only its weights can be used."""
        self.batches, self.validated, self.length = state["batches"], state["validated"], FitLength(*state["length"])
        self._validation_due, self._fault = state["validation_due"], None
        loops = checkpoint["loops"]["fit_loop"]
        if self.length.steps(self.batches) != checkpoint["global_step"]:
            self._fault = (
                f"the checkpoint was written within an optimizer step (after {self.batches} batches and "
                f"{checkpoint['global_step']} steps), and what was underway is lost: resume from another one"
            )
        elif wrong := [name for name, counters in self._counters().items() if loops[name] != counters]:
            self._fault = (
                f"the checkpoint contradicts itself: {wrong[0]} is {loops[wrong[0]]} after {self.batches} batches; resume "
                "from another one"
            )

    def begin_training(self, trainer: L.Trainer) -> None:
        """Training begins, or goes on: with the validation that was to follow when the checkpoint was written, if one was.

        Raises:
            UserError: The data are not at this position.
        """
        there = getattr(trainer.train_dataloader, "position", self.batches)
        if trainer.ckpt_path is not None and there != self.batches:
            raise UserError(
                f"the checkpoint contradicts itself: {self.batches} batches were trained on, and the data stand at {there}; "
                "it was not written at a batch's end: resume from another one"
            )
        self.begin_epoch(trainer)
        if self.is_validation_due:
            # As Lightning does after a batch.
            first = trainer._logger_connector._first_loop_iter
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True
            trainer._logger_connector._first_loop_iter = first

    def begin_epoch(self, trainer: L.Trainer) -> None:
        """An epoch begins, or goes on."""
        assert self.length is not None
        self.length.limit_epoch(trainer, self.batches)

    def begin_batch(self, trainer: L.Trainer) -> None:
        """A batch begins."""
        # Lightning's step where one is logged without saying at which; it miscounts after a resume.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def count(self, trainer: L.Trainer, batch_idx: int) -> float:
        """A batch was trained on; what its loss is to be multiplied by (`FitLength.share`)."""
        assert self.length is not None
        self.batches += 1
        return self.length.share(trainer, batch_idx)

    def outcome(self) -> Outcome:
        """What has become of training, now that it has ended: it is finished when it has come to its planned length."""
        if self.length is None or self.batches >= self.length.batches:
            return Outcome("finished")
        done, planned = (self.length.all_steps(batches) for batches in (self.batches, self.length.batches))
        return Outcome("stopped", f"at step {done} of {planned}; --ckpt_path last continues")

    def _validation_follows(self, trainer: L.Trainer) -> bool:
        fetcher = trainer.fit_loop._data_fetcher
        if trainer.state.fn != TrainerFn.FITTING or fetcher is None or not self.batches or self.validated == self.batches:
            return False
        return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)

    def _counters(self) -> dict[str, Any]:
        """Lightning's own, of a checkpoint from the end of a batch, or from before an epoch's first."""
        assert self.length is not None
        epochs, inside = self.length.epochs(self.batches)
        begun = int(inside > 0)
        # A batch's own callbacks are the last thing that counts as done.
        of_epoch = _counts(epochs + begun, epochs)
        batch = {"total": _counts(self.batches, self.batches - begun, ended=True)}
        batch["current"] = _counts(inside, inside - begun, ended=True)
        none = _counts(0, 0)
        steps = {"total": self.length.all_steps(self.batches), "current": self.length.all_steps(inside)}
        optimizer = {
            "step": {of: {"ready": n, "completed": n} for of, n in steps.items()},
            "zero_grad": {of: {"ready": n, "completed": n, "started": n} for of, n in steps.items()},
        }
        return {
            "epoch_progress": {"total": of_epoch, "current": dict(of_epoch)},
            "epoch_loop.batch_progress": batch | {"is_last_batch": False},
            "epoch_loop.state_dict": {"_batches_that_stepped": steps["total"]},
            "epoch_loop.scheduler_progress": dict(optimizer["step"]),
            "epoch_loop.automatic_optimization.optim_progress": {"optimizer": optimizer},
            "epoch_loop.val_loop.batch_progress": {"total": none, "current": dict(none), "is_last_batch": False},
        }


_WORDS = {"per_epoch": "batches in an epoch", "accumulated": "trainer.accumulate_grad_batches"}


def _counts(started: int, completed: int, ended: bool = False) -> dict[str, int]:
    return {"ready": started, "completed": completed, "started": started, "processed": started if ended else completed}
