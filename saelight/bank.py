"""SAEBank: the LightningModule that trains many SAEs on one stream of batches, each as if it were alone.

Shapes: B batch, D d_in, K kept latents.
"""

import re
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

import saelight.parsing  # noqa: F401  (teaches load_from_checkpoint to read the SAEs' configs)
from saelight.errors import UserError
from saelight.evaluation import Evaluation
from saelight.horizon import limit_steps, measure
from saelight.isolation import Quarantine, clip_gradients, derived_seed
from saelight.ops.handover import hand_over
from saelight.optimizer import adamw
from saelight.record import StepRecord
from saelight.resume import check_same_config
from saelight.saes import SAE, Moment, SAEConfig
from saelight.schedules import Horizon

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


class TopLatents(NamedTuple):
    """The strongest latents of each token, of one SAE."""

    values_BK: Tensor
    """Their activations, float32, largest first; 0 where fewer than K fired."""
    indices_BK: Tensor
    """Their indices, int32."""


class SAEBank(L.LightningModule):
    """A bank of named SAEs sharing every batch of activations (B, D).

    Each SAE has its own seed, loss, learning rate, schedule, clipping and fate: trained together or alone, its weights
    come out the same bit for bit. One SAE's graph is alive at a time, and one fused AdamW steps them all.
    """

    def __init__(
        self,
        saes: dict[str, SAEConfig],
        d_in: int,
        seed: int = 0,
        max_tokens: int | None = None,
        predict_top: int = 32,
    ) -> None:
        """
        Args:
            saes: The SAEs by name. Names become log prefixes, folders and W&B run names.
            d_in: Width of the activations. The CLI takes it from the data.
            seed: Seed of the run; each SAE's own seed derives from it and the SAE's name.
            max_tokens: Length of training in tokens, beside trainer.max_epochs and trainer.max_steps; the first reached
                ends it.
            predict_top: Latents per token that predict keeps.
        """
        super().__init__()
        if not saes:
            raise UserError("model.saes is empty: name at least one SAE")
        for name in saes:
            if not _NAME.fullmatch(name):
                raise UserError(f"{name!r} cannot name an SAE: use letters, digits, '_', '-' and '.' (not first)")
        if max_tokens is not None and max_tokens < 1:
            raise UserError(f"model.max_tokens must be positive, got {max_tokens}")
        # Plain data, so that the next checkpoint loads with weights_only=True and the CLI reads it back.
        self.save_hyperparameters({
            "saes": {name: config.spec() for name, config in saes.items()},
            "d_in": d_in,
            "seed": seed,
            "max_tokens": max_tokens,
            "_instantiator": "lightning.pytorch.cli.instantiate_module",
        })  # fmt: skip
        self.d_in = d_in
        self.predict_top = predict_top
        self.names = list(saes)
        self.seeds = [derived_seed(seed, name) if c.seed is None else c.seed for name, c in saes.items()]
        # A ModuleList with the names beside it: a ModuleDict refuses dots.
        self.saes = nn.ModuleList(map(self._build, saes, saes.values(), self.seeds))
        self.quarantine = Quarantine(len(saes))
        self.gauges = Evaluation(list(self.saes))
        self.horizon: Horizon | None = None
        self.tokens_seen = 0
        self.normalisation: dict[str, Any] = {"kind": "none", "scale": 1.0}
        self.evaluation: dict[str, dict[str, float]] = {}
        """The last validation's or test's metrics, by SAE."""
        self.evaluated_at: int | None = None
        """The optimizer step of the last validation."""
        self._record: StepRecord | None = None
        self._recorded_at = -1

    def _build(self, name: str, config: SAEConfig, seed: int) -> SAE:
        try:
            return config.build(self.d_in, seed)
        except UserError as error:
            raise UserError(f"SAE {name!r}: {error}") from None

    def __getitem__(self, name: str) -> SAE:
        return self.saes[self.names.index(name)]

    def forward(self, x_BD: Tensor) -> dict[str, Tensor]:
        """Each SAE's reconstruction (B, D) of normalised activations."""
        return {name: sae(x_BD) for name, sae in zip(self.names, self.saes, strict=True)}

    # --- setting up

    def setup(self, stage: str) -> None:
        if self.trainer.precision not in ("32-true", "64-true", "bf16-mixed"):
            raise UserError(f"a bank trains in bf16-mixed or 32-true, not {self.trainer.precision}: set trainer.precision")
        if self.trainer.gradient_clip_val:
            raise UserError("trainer.gradient_clip_val would clip all SAEs as one: give each SAE its own `clip` instead")
        data = self.trainer.datamodule
        if getattr(data, "d_in", self.d_in) != self.d_in:
            raise UserError(f"the data has d_in = {data.d_in}, but the bank was built for d_in = {self.d_in}")

    def configure_optimizers(self):
        planned = measure(self.trainer, self.hparams["max_tokens"])
        if self.horizon is None or self.trainer.ckpt_path is None:
            # A new training, if of weights that another one left.
            self.horizon, self.tokens_seen = planned, 0
        elif self.horizon.steps != planned.steps:
            rank_zero_warn(
                f"this run was begun for {self.horizon.steps} optimizer steps and is now to end at {planned.steps}; "
                f"schedules and fractions of training still refer to {self.horizon.steps}"
            )
        limit_steps(self.trainer, self.horizon, self.hparams["max_tokens"])
        return adamw(zip(self.names, self.saes, strict=True), self.horizon)

    def on_fit_start(self) -> None:
        data = self.trainer.datamodule
        self.normalisation = getattr(data, "normalisation", self.normalisation)
        self.quarantine.newly_stopped()  # those of a resumed run are old news
        waiting = [sae for sae in self.saes if not sae.initialised]
        if waiting:
            sample_ND = self._init_sample().to(self.device)
            if sample_ND.shape[-1] != self.d_in:
                raise UserError(f"the data is {sample_ND.shape[-1]} wide, but the bank was built for d_in = {self.d_in}")
            for sae in waiting:
                sae.initialise(sample_ND)
                if sae.config.dead_after is None:
                    sae.dead_after.fill_(min(10_000_000, max(1, self.horizon.tokens // 10)))

    def _init_sample(self, n: int = 8192) -> Tensor:
        """Activations (up to n, D) that the data-dependent start is computed from, the same on every rank."""
        if hasattr(self.trainer.datamodule, "init_sample"):
            return self.trainer.datamodule.init_sample(n)
        rows, count = [], 0
        for x_BD in self.trainer.train_dataloader:
            rows.append(x_BD)
            count += len(x_BD)
            if count >= n:
                break
        return self.trainer.strategy.broadcast(torch.cat(rows)[:n])

    # --- training

    def training_step(self, x_BD: Tensor, batch_idx: int) -> Tensor:
        moment = Moment(self.trainer.global_step, self.horizon)
        tokens = len(x_BD) * self.trainer.world_size
        self._record = self._new_record(x_BD)
        total = torch.zeros((), device=self.device)
        parameters, gradients = [], []
        for i, sae in enumerate(self.saes):
            own = list(sae.parameters())
            parameters += own
            if i in self.quarantine.stopped:
                # DDP waits for every parameter's gradient; without DDP there is nothing to hand over.
                gradients += [torch.zeros_like(p) if self.trainer.world_size > 1 else None for p in own]
                continue
            losses = sae.losses(x_BD, moment)
            gradients += self._backward(losses.total, own)
            self.quarantine.note_loss(i, losses.total)
            sae.tokens_since_fired.add_(tokens).masked_fill_(losses.counts_F > 0, 0)
            total += losses.total.detach()
            if self._record is not None:
                self._record.add_losses(i, sae, losses)
        self._share_ages()
        self.tokens_seen += tokens
        return hand_over(total, gradients, parameters)

    def _backward(self, loss: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
        # Backward runs in the precision its forward chose, not in autocast's.
        with torch.autocast(self.device.type, enabled=False):
            gradients = list(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
        # A non-finite loss shows in a gradient, and so on every rank once DDP has reduced it; a finite one adds 0.
        smallest = min(range(len(gradients)), key=lambda j: gradients[j].numel())
        gradients[smallest] += loss.detach() * 0
        return gradients

    def _share_ages(self) -> None:
        """A latent that fired on any rank fired: the least age over the ranks, in one collective for all SAEs."""
        if self.trainer.world_size > 1:
            ages = [sae.tokens_since_fired for sae in self.saes]
            all_ages = torch.cat(ages)
            torch.distributed.all_reduce(all_ages, torch.distributed.ReduceOp.MIN)
            torch._foreach_copy_(ages, list(all_ages.split([len(age) for age in ages])))

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        for i, sae in enumerate(self.saes):
            if i in self.quarantine.stopped:
                sae.zero_grad(set_to_none=True)
                continue
            sae.constrain_gradients()
            norm, finite = clip_gradients([p.grad for p in sae.parameters()], sae.config.clip)
            self.quarantine.note_gradient(i, finite, self.trainer.global_step)
            if self._record is not None:
                self._record.add_norm(i, norm)
        # Reading the marks waits for the device: free on the CPU, elsewhere once per log interval.
        if self.device.type == "cpu" or (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:
            self.read_quarantine()

    def read_quarantine(self) -> None:
        """Stop the SAEs that were marked since the last reading, and tell the callbacks."""
        for i in self.quarantine.newly_stopped():
            self.saes[i].zero_grad(set_to_none=True)
            self._tell("on_quarantine", self.names[i], self.quarantine.describe(i))
        if len(self.quarantine.stopped) == len(self.saes):
            self.trainer.should_stop = True

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        for i, sae in enumerate(self.saes):
            if i not in self.quarantine.stopped:
                sae.constrain_weights()

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        # An accumulated batch has no gradient norm yet: wait for the step.
        if self._record is None or self.trainer.global_step == self._recorded_at:
            return
        values = self._record.read(lambda t: self.trainer.strategy.reduce(t, reduce_op="mean"))
        values["tokens"] = float(self.tokens_seen)
        for logger in self.trainer.loggers:
            logger.log_metrics(values, step=self.trainer.global_step)
        self._record = None

    def _new_record(self, x_BD: Tensor) -> StepRecord | None:
        step = self.trainer.global_step + 1
        due = bool(self.trainer.loggers) and (step % self.trainer.log_every_n_steps == 0 or step == 1)
        self._recorded_at = self.trainer.global_step
        if not due:
            return None
        rates = {group["name"]: group["lr"] for group in self.trainer.optimizers[0].param_groups}
        return StepRecord(self.names, x_BD, rates)

    # --- evaluation

    def _finish_evaluation(self, stage: str) -> None:
        results = self.gauges.finish(list(self.saes), getattr(self.trainer.datamodule, "features", None))
        if self.trainer.sanity_checking:
            return
        self.evaluation, self.evaluated_at = dict(zip(self.names, results, strict=True)), self.trainer.global_step
        for name, values in self.evaluation.items():
            scalars = {f"{name}/{stage}/{key}": value for key, value in values.items()}
            # The metrics are already summed over ranks; sync_dist only tells Lightning so.
            self.log_dict(scalars, sync_dist=self.trainer.world_size > 1)

    def validation_step(self, x_BD: Tensor, batch_idx: int) -> None:
        self.gauges.update(list(self.saes), x_BD)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self._finish_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._finish_evaluation("test")

    def predict_step(self, x_BD: Tensor, batch_idx: int) -> dict[str, TopLatents]:
        """The strongest `predict_top` latents of each token, by SAE."""
        tops = {}
        for name, sae in zip(self.names, self.saes, strict=True):
            values_BK, indices_BK = sae.encode(x_BD).float().topk(min(self.predict_top, sae.d_sae))
            tops[name] = TopLatents(values_BK, indices_BK.int())
        return tops

    # --- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["saelight"] = {
            "horizon": list(self.horizon) if self.horizon else None,
            "tokens_seen": self.tokens_seen,
            "normalisation": self.normalisation,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_same_config(checkpoint["hyper_parameters"], dict(self.hparams))
        state = checkpoint["saelight"]
        self.horizon = Horizon(*state["horizon"]) if state["horizon"] else None
        self.tokens_seen = state["tokens_seen"]
        self.normalisation = state["normalisation"]

    def _tell(self, hook: str, *args) -> None:
        for callback in self.trainer.callbacks:
            if hasattr(callback, hook):
                getattr(callback, hook)(self.trainer, self, *args)
