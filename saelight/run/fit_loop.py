"""Lightning's loop over epochs, which also begins where all is trained on and only the last validation is still to come."""

from lightning.pytorch.loops import _FitLoop

from saelight.bank import SAEBank


class FitLoop(_FitLoop):
    """Lightning skips all of a fit that goes on from its last step. What is due there belongs to training: callbacks may end
    an SAE by it, and the final checkpoint and the logs have it."""

    @property
    def skip(self) -> bool:
        bank = self.trainer.lightning_module
        due = isinstance(bank, SAEBank) and bank.position.is_validation_due and self.trainer.limit_train_batches != 0
        return super().skip and not due
