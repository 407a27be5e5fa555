"""SAEBank: the LightningModule that trains many SAEs on one stream of batches, each as if it were alone.

Shapes: B batch, D d_in (d_out of a target).
"""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from saelight.bank.ending import Ending
from saelight.bank.fit_length import measure
from saelight.bank.isolation import clip_gradients, derived_seed, own_gradients
from saelight.bank.optimizer import adamw, forget, learning_rates
from saelight.bank.outcome import Outcome
from saelight.bank.ranks import share_least, share_mean
from saelight.bank.record import StepRecord
from saelight.bank.resume import check_same_config, check_same_units
from saelight.bank.room import check_room
from saelight.bank.sae_list import SAEList, configs
from saelight.bank.start import begin, check_trainer, read_starts, sample
from saelight.bank.trainer_attributes import undeclared
from saelight.data.pairs import as_pair
from saelight.errors import UserError
from saelight.ops.handover import hand_over
from saelight.ops.normalisation import Normalisation
from saelight.ranges import LONGEST, SEED, Range, check_arguments
from saelight.saes import SAE, Moment, SAEConfig
from saelight.saes.trained import Trained, read
from saelight.schedules import Horizon


class SAEBank(Ending):
    """A bank of named SAEs sharing every batch: activations (B, d_in), or for transcoders pairs of them and targets
    (B, d_out).

    Each SAE has its own seed, loss, learning rate, schedule, clipping and fate: trained together or alone, its weights
    come out the same bit for bit. One SAE's graph is alive at a time, and one optimizer steps them all.
    """

    whitening: Tensor | None
    """C^{-a} (d_in, d_in) of the training's rows, of the optimizer; None where no SAE asks for it."""

    def __init__(
        self,
        saes: dict[str, SAEConfig],
        d_in: Annotated[int, Range(least=1)],
        seed: Annotated[int, SEED] = 0,
        max_tokens: Annotated[int | None, Range(least=1, most=LONGEST)] = None,
        predict_top: Annotated[int, Range(least=1, most=2**27)] = 32,
        d_out: Annotated[int | None, Range(least=1)] = None,
    ) -> None:
        """
        Args:
            saes: The SAEs by name. Names become log prefixes, folders and W&B run names.
            d_in: Width of the activations. The CLI takes it from the data.
            seed: Seed of the run; each SAE's own seed derives from it and the SAE's name.
            max_tokens: Length of training in tokens, beside trainer.max_epochs and trainer.max_steps; the first reached
                ends it.
            predict_top: Latents per token that predict keeps.
            d_out: Width of the targets when the SAEs are transcoders. The CLI takes it from the data.
        """
        super().__init__()
        saes = configs(saes)
        given = {"d_in": d_in, "seed": seed, "max_tokens": max_tokens, "predict_top": predict_top, "d_out": d_out}
        check_arguments(SAEBank.__init__, given, "model.")
        # Plain data, so that the next checkpoint loads with weights_only=True.
        self.save_hyperparameters(
            {
                "saes": {name: config.spec() for name, config in saes.items()},
                "d_in": d_in,
                "d_out": d_out,
                "seed": seed,
                "max_tokens": max_tokens,
            }
        )
        check_room(saes, d_in, d_out)
        self.d_in, self.d_out = d_in, d_out
        self.names = list(saes)
        self.seeds = [derived_seed(seed, name) if c.seed is None else c.seed for name, c in saes.items()]
        # A ModuleList with the names beside it: a ModuleDict refuses dots.
        self.saes = SAEList(map(self._build, saes, saes.values(), self.seeds))
        whitens = any(sae.config.optimizer == "latent_adamw" and sae.W_enc is not None for sae in self.saes)
        self.register_buffer("whitening", torch.zeros(d_in, d_in) if whitens else None)
        self.begin_evaluation(predict_top)
        self.begin_ending()
        self._horizon: Horizon | None = None
        self.tokens_seen = 0
        self.normalisation = Normalisation()
        self.target_normalisation: Normalisation | None = None
        self.read_start: Callable[[str], Trained] = read
        """The SAE at an `init_from`: of saelight's own folders, until a Trainer puts one here that knows others."""
        self._starts: dict[str, Trained] = {}
        self._record: StepRecord | None = None
        self._moment: Moment | None = None
        self._measured: dict[int, list[Tensor]] = {}

    def _build(self, name: str, config: SAEConfig, seed: int) -> SAE:
        try:
            return config.build(self.d_in, seed, self.d_out)
        except UserError as error:
            raise UserError(f"SAE {name!r}: {error}") from None

    def __getitem__(self, name: str) -> SAE:
        return self.saes[self.names.index(name)]

    def _named(self) -> dict[str, SAE]:
        return dict(zip(self.names, self.saes, strict=True))

    def forward(self, x_BD: Tensor) -> dict[str, Tensor]:
        """Each SAE's reconstruction (B, d_out) of normalised activations (B, d_in)."""
        return {name: sae(x_BD) for name, sae in self._named().items()}

    @property
    def horizon(self) -> Horizon:
        """How long training is, once it has begun."""
        assert self._horizon is not None
        return self._horizon

    # --- setting up

    def setup(self, stage: str) -> None:
        super().setup(stage)
        check_trainer(self.trainer, self.d_in, self.d_out)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        planned, length = measure(self.trainer, self.hparams["max_tokens"])
        resumes = self._horizon is not None and self.trainer.ckpt_path is not None
        self.position.begin(length, resumes)
        if self._horizon is None or not resumes:
            # A new training, if of weights that another one left.
            self._horizon, self.tokens_seen = planned, 0
        elif self.horizon.steps != planned.steps:
            rank_zero_warn(
                f"this run was begun for {self.horizon.steps} optimizer steps and is now to end at {planned.steps}; "
                f"schedules and fractions of training still refer to {self.horizon.steps}"
            )
        # Before the run has a folder, and after a checkpoint has been read: what goes on starts from nothing else.
        self._starts = read_starts(self._named(), self.read_start)
        return adamw(self._named().items(), self.horizon, self.whitening)

    def on_fit_start(self) -> None:
        data = undeclared(self.trainer).datamodule
        normalisation = getattr(data, "normalisation", self.normalisation)
        if self.trainer.ckpt_path is not None:
            check_same_units(self.normalisation, normalisation)
        self.normalisation = normalisation
        self.target_normalisation = getattr(data, "target_normalisation", self.target_normalisation)
        self.quarantine.newly_stopped()  # those of a resumed run are old news
        units = self.normalisation, self.target_normalisation
        measured = self.whitening, self.evaluation.centre_D
        begin(self._named(), self.horizon, self.trainer, self._starts, units, measured)
        self._starts = {}

    # --- training

    def on_train_start(self) -> None:
        self.position.begin_training(self.trainer)

    def on_train_epoch_start(self) -> None:
        self.position.begin_epoch(self.trainer)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.position.begin_batch(self.trainer)

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if not self.trainer.sanity_checking:
            self.position.validated = self.position.batches

    def training_step(self, batch: Tensor | tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x_BD, y_BD = as_pair(batch)
        micro_batch = batch_idx % self.trainer.accumulate_grad_batches
        self._moment = Moment(self.trainer.global_step, self.horizon, micro_batch, self.trainer.global_rank)
        tokens = len(x_BD) * self.trainer.world_size
        self._record = self._new_record(y_BD)
        totals: list[Tensor] = []
        parameters: list[nn.Parameter] = []
        gradients: list[Tensor | None] = []
        for i, sae in enumerate(self.saes):
            own = list(sae.parameters())
            parameters += own
            if i in self.inactive:
                # DDP waits for every parameter's gradient; without DDP there is nothing to hand over.
                gradients += [torch.zeros_like(p) if self.trainer.world_size > 1 else None for p in own]
                continue
            losses = sae.losses(x_BD, y_BD, self._moment)
            gradients += own_gradients(losses.total, own)
            self.quarantine.note_loss(i, losses.total)
            sae.tokens_since_fired.add_(tokens).masked_fill_(losses.counts_F > 0, 0)
            totals.append(losses.total.detach())
            if losses.measured is not None:
                self._measured.setdefault(i, []).append(losses.measured)
            if self._record is not None:
                self._record.add_losses(i, sae, losses)
        if self.trainer.world_size > 1:
            # A latent that fired on any rank fired.
            share_least([sae.tokens_since_fired for sae in self.saes])
        self.tokens_seen += tokens
        share = self.position.count(self.trainer, batch_idx)
        # Lightning divides the loss by the number of batches that are accumulated.
        scaled = share != 1 or self.trainer.accumulate_grad_batches != 1
        total = sum(totals[1:], totals[0]) if totals else torch.zeros((), device=self.device)
        loss = hand_over(total, gradients, parameters, scaled=scaled)
        return loss if share == 1 else loss * share

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *given: Any, **settings: Any) -> None:
        for i, sae in enumerate(self.saes):
            if i in self.inactive:
                sae.zero_grad(set_to_none=True)
                continue
            sae.constrain_gradients()
            norm, _ = clip_gradients([p.grad for p in sae.parameters() if p.grad is not None], sae.config.clip)
            self.quarantine.note_gradient(i, norm, self.trainer.global_step)
            if self._record is not None:
                self._record.add_norm(i, norm)
        # Reading the marks waits for the device: free on the CPU, elsewhere where the step is logged, which waits too.
        if self.device.type == "cpu" or self._record is not None:
            self.read_quarantine()

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        assert self._moment is not None
        measured = {i: torch.stack(of).mean(0) if len(of) > 1 else of[0] for i, of in self._measured.items()}
        self._measured.clear()
        if measured and self.trainer.world_size > 1:
            share_mean(list(measured.values()), self.trainer.world_size)
        for i, sae in enumerate(self.saes):
            if i in self.inactive:
                continue
            sae.constrain_weights()
            if i in measured:
                sae.absorb(measured[i], self._moment)
            sae.note_steps(self._moment.step + 1, self.horizon)
            if sae.resample_due(self._moment):
                forget(optimizer, sae, sae.resample(*sample(self.trainer, self.device), self._moment))

    def lr_scheduler_step(self, *args: Any, **kwargs: Any) -> None:
        super().lr_scheduler_step(*args, **kwargs)
        # The step is complete, and no callback has seen its end yet, which may stop training or save a checkpoint.
        self._log_record()

    def _log_record(self) -> None:
        if self._record is None:
            return
        values, self._record = self._record.read(lambda t: self.trainer.strategy.reduce(t, reduce_op="mean")), None
        values["tokens"] = float(self.tokens_seen)
        for logger in self.trainer.loggers:
            logger.log_metrics(values, step=self.trainer.global_step)
        self._notify("on_record", values)

    def _new_record(self, y_BD: Tensor) -> StepRecord | None:
        step, every = self.trainer.global_step + 1, undeclared(self.trainer).log_every_n_steps
        if not every or (step % every and step > 1):
            return None
        return StepRecord(self.names, y_BD, learning_rates(self.trainer.optimizers[0]))

    # --- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["saelight"] = {
            "horizon": list(self._horizon) if self._horizon else None,
            "tokens_seen": self.tokens_seen,
            "position": self.position.save(checkpoint, self.trainer),
            "normalisation": self.normalisation.plain(),
            "target_normalisation": self.target_normalisation and self.target_normalisation.plain(),
            "retired": {self.names[i]: outcome._asdict() for i, outcome in self.retired.items()},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        check_same_config(checkpoint["hyper_parameters"], dict(self.hparams))
        state = checkpoint["saelight"]
        self._horizon = Horizon(*state["horizon"]) if state["horizon"] else None
        self.tokens_seen = state["tokens_seen"]
        self.position.load(state["position"], checkpoint)
        # The time that trainer.max_time gives is this process' own: what went on in earlier ones would leave it none.
        checkpoint.get("callbacks", {}).pop(Timer().state_key, None)
        self.normalisation = Normalisation.from_plain(state["normalisation"])
        target = state["target_normalisation"]
        self.target_normalisation = target and Normalisation.from_plain(target)
        self.retired = {self.names.index(name): Outcome(**outcome) for name, outcome in state["retired"].items()}
