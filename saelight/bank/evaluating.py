"""The part of a bank that evaluates: validation, test and prediction.

Shapes: B batch, D d_in (d_out of a target).
"""

from collections.abc import Callable
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from saelight.bank.evaluation import Evaluation
from saelight.bank.predictions import strongest
from saelight.bank.restore import Restorable
from saelight.bank.sae_list import SAEList
from saelight.bank.trainer_attributes import undeclared
from saelight.data.pairs import as_pair


class Evaluating(Restorable):
    """A module of named SAEs that validates, tests and predicts with all of them."""

    names: list[str]
    saes: SAEList

    def begin_evaluation(self, predict_top: int) -> None:
        """Make the metrics of the SAEs, once these are there."""
        self.predict_top = predict_top
        self.keeps: Callable[[Tensor, int], Any] = strongest
        """What prediction makes of an SAE's latents (B, F), given `predict_top`."""
        self.evaluation = Evaluation(list(self.saes))
        self.last_metrics: dict[str, dict[str, float]] = {}
        """The last validation's or test's metrics, by SAE."""
        self.evaluated_at: int | None = None
        """The optimizer step of the last validation."""

    def _finish_evaluation(self, stage: str) -> None:
        results = self.evaluation.finish(list(self.saes), getattr(undeclared(self.trainer).datamodule, "features", None))
        if self.trainer.sanity_checking:
            return
        step = self.trainer.global_step
        self.last_metrics, self.evaluated_at = dict(zip(self.names, results, strict=True)), step
        scalars = {f"{n}/{stage}/{key}": value for n, values in self.last_metrics.items() for key, value in values.items()}
        # For callbacks. The metrics are already summed over ranks; sync_dist only tells Lightning so.
        self.log_dict(scalars, logger=False, sync_dist=self.trainer.world_size > 1)
        # Lightning's own count of steps is one less within training, as many after it, and others after a resume.
        for logger in self.trainer.loggers:
            logger.log_metrics(scalars, step=step)

    def validation_step(self, batch: Tensor | tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluation.update(list(self.saes), *as_pair(batch))

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._finish_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._finish_evaluation("test")

    def measure_latents(self) -> None:
        """Add to the last validation's metrics what takes time and is measured once, when training is over."""
        for i, name in enumerate(self.names if self.last_metrics else ()):
            try:
                self.last_metrics[name] |= self.evaluation.latents(self.saes[i], i)
            except Exception as error:
                # Training is over: whatever is wrong with one SAE's latents, the others' results are not lost by it.
                rank_zero_warn(f"SAE {name!r}: clusters and weight_correlation could not be measured ({error})")

    def predict_step(self, batch: Tensor | tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Any]:
        """By SAE, what `keeps` makes of the latents: the strongest `predict_top` of each token."""
        x_BD = as_pair(batch).x_BD
        return {n: self.keeps(s.encode(x_BD), self.predict_top) for n, s in zip(self.names, self.saes, strict=True)}
