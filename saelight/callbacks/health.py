"""Warnings of trouble in training: each names the SAE, the number and a remedy, and comes once."""

import math
from collections import deque
from statistics import median
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

from saelight.bank.sae_bank import SAEBank
from saelight.bank.sae_callback import SAECallback
from saelight.callbacks.declarations import Trouble, WatchHealthSettings
from saelight.callbacks.validations import in_training
from saelight.saes import SAE

_MIN_STEPS = 100
"""No warnings before: a run of few steps is a trial."""
_WARMED_UP = 0.2
"""The share of training after which alive latents and FVU say something: λ and the learning rate are past warm-up."""
_FALLEN = 0.5
"""The share of training after which an FVU should be below 1; until then it may still be on its way down."""
_HARM = 1.5
"""An FVU that is more than the nothing which a collapsed SAE explains."""
_LEAST_ALIVE = 0.01
_FEW = 5
"""Logged steps that make a median."""
_SPIKE = 3.0
"""Times the largest of the last logged losses. Those of healthy runs stay below 1.5."""
_SPIKES_FROM = 0.1
_NEGLIGIBLE = 1e-4
"""An FVU below this is none to worry about, whatever it was before."""
_MANY_DEAD = 0.3
"""The share of latents that did nothing all along which a user should know of at the end."""
_OFF_TARGET = 0.1
"""How far from target_l0 an L0 may end, relatively. The promise is 5 % (docs/saes.md)."""
_STUCK_FOR = 0.2
"""The share of training over which an L0 that moves by less than _STILL is stuck, if it is also where it should not be."""
_STILL = 0.05
_DENSE = 0.25
"""The share of d_sae above which an L0 is not sparse."""
_MISSED = 1.2
"""Times, or part, of target_l0 at which it is missed."""
_TARGET_FROM = 0.5
"""The share of training after which λ aims at target_l0 itself (saes/penalised.py): an L0 that is stuck elsewhere stays."""


class WatchHealth(WatchHealthSettings, SAECallback):
    """Warns of latents that have nearly all died, an L0 that is stuck, an FVU above 1 and a loss that spikes, and at the end
    of many dead latents and a missed `target_l0`.

    It looks at the logged training steps (every `trainer.log_every_n_steps`) and at the validations.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._warned: dict[str, list[str]] = {}
        """By SAE: what it was warned of."""
        self._history: dict[str, _History] = {}

    def on_fit_start(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        self._history = {name: _History() for name in bank.names}
        if trainer.ckpt_path is None:
            self._warned = {}

    def on_record(self, trainer: L.Trainer, bank: L.LightningModule, values: dict[str, float]) -> None:
        assert isinstance(bank, SAEBank)
        step = trainer.global_step
        done = step / bank.horizon.steps
        for name, sae in zip(bank.names, bank.saes, strict=True):
            now = {key.removeprefix(f"{name}/train/"): v for key, v in values.items() if key.startswith(f"{name}/train/")}
            if "loss" not in now or step < _MIN_STEPS:  # it is inactive, or it is too early
                continue
            history = self._history[name]
            if now["lr"] > history.lr:
                history.losses.clear()  # a warm restart: the loss may rise
            history.lr = now["lr"]
            if done >= _SPIKES_FROM:
                self._look_for_spike(name, step, now["reconstruction"], now["fvu"], history)
            if done >= _WARMED_UP:
                self._look_at_alive(name, sae, now["dead"], f"in the last {int(sae.dead_after)} tokens", now.get("sparsity"))
                history.fvu.append(now["fvu"])
                # A validation is the better judge, but it may be far off.
                if done >= _FALLEN and bank.evaluated_at is None and len(history.fvu) == _FEW:
                    self._look_at_fvu(bank, name, median(history.fvu), f"of the last {_FEW} logged batches")
            if now.get("sparsity"):
                history.sparsity = now["sparsity"]
                history.note_l0(step, now["l0"], bank.horizon.steps)
                self._look_at_l0(name, sae, now, history, done)

    def on_validation_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        step = trainer.global_step
        if trainer.sanity_checking or not self._history:
            return
        if step >= max(_MIN_STEPS, bank.horizon.steps):
            # In training or right after it: the final weights.
            for i, (name, sae) in enumerate(zip(bank.names, bank.saes, strict=True)):
                if i not in bank.inactive:
                    self._look_at_target(name, sae, bank.last_metrics[name]["l0"])
        if not in_training(trainer):
            return
        if step < _MIN_STEPS or step < _WARMED_UP * bank.horizon.steps:
            return
        tokens = sum(trainer.num_val_batches) * getattr(trainer.val_dataloaders, "batch_size", 0) * trainer.world_size
        where = f"in the validation at step {step}"
        for i, (name, sae) in enumerate(zip(bank.names, bank.saes, strict=True)):
            if i in bank.inactive:
                continue
            values = bank.last_metrics[name]
            if tokens >= sae.d_sae:  # fewer may be too few for each latent to fire
                self._look_at_alive(name, sae, values["dead"], where, self._history[name].sparsity)
            if step >= _FALLEN * bank.horizon.steps or values["fvu"] >= self._history[name].validated_fvu:
                self._look_at_fvu(bank, name, values["fvu"], where)
            self._history[name].validated_fvu = values["fvu"]

    def on_train_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        assert isinstance(bank, SAEBank)
        # One that was stopped early is not yet what it was to become.
        if trainer.global_step < max(_MIN_STEPS, bank.horizon.steps):
            return
        for i, (name, sae) in enumerate(zip(bank.names, bank.saes, strict=True)):
            dead = float(sae.dead().float().mean())
            if i not in bank.inactive and dead > _MANY_DEAD and "alive" not in self._warned.get(name, []):
                remedies = " or ".join(_remedies(sae, self._history[name].sparsity))
                silent = f"silent in the last {int(sae.dead_after)} tokens"
                self._warn(name, "dead", f"{dead:.0%} of its latents are dead, {silent}: {remedies}")

    def _look_at_target(self, name: str, sae: SAE, l0: float) -> None:
        target = _target(sae)
        if target is not None and abs(l0 / target - 1) > _OFF_TARGET:
            self._warn(
                name,
                "target",
                f"its L0 is {l0:.3g} in the last validation, {l0 / target - 1:+.0%} off target_l0 = {target:g}: train "
                "longer, change lr, or take a target nearer to it",
            )

    def _look_at_alive(self, name: str, sae: SAE, dead: float, where: str, sparsity: float | None) -> None:
        if 1 - dead >= _LEAST_ALIVE:
            return
        remedies = " or ".join(_remedies(sae, sparsity))
        self._warn(name, "alive", f"only {1 - dead:.1%} of its latents fired {where}: {remedies}")

    def _look_at_fvu(self, bank: SAEBank, name: str, fvu: float, where: str) -> None:
        # That a collapsed SAE explains nothing is no news; that what is left of it does harm is.
        if fvu > (_HARM if "alive" in self._warned.get(name, []) else 1):
            kind = bank.normalisation.kind
            units = "" if kind == "standard" else f", and set data.normalise standard (it is {kind})"
            self._warn(name, "fvu", f"FVU is {fvu:.2f} {where}, worse than predicting the mean: lower lr{units}")

    def _look_at_l0(self, name: str, sae: SAE, now: dict[str, float], history: "_History", done: float) -> None:
        since = history.still_since()
        if since is None:
            return
        l0, target = now["l0"], _target(sae)
        stuck = f"L0 has stayed at {l0:.1f} since step {since}"
        if target is not None:
            if done >= _TARGET_FROM and not 1 / _MISSED < l0 / target < _MISSED:
                wider = ", widen bandwidth" if hasattr(sae.config, "bandwidth") else ""
                self._warn(
                    name,
                    "l0",
                    f"{stuck}, far from target_l0 = {target:g}: raise lr{wider}, train longer, or take a "
                    "target nearer to it",
                )
        elif l0 > _DENSE * sae.d_sae:
            self._warn(
                name,
                "l0",
                f"{stuck}, of {sae.d_sae} latents: raise sparsity (λ is {now['sparsity']:.3g}), or lr if "
                "the loss hardly falls",
            )

    def _look_for_spike(self, name: str, step: int, loss: float, fvu: float, history: "_History") -> None:
        if len(history.losses) == _FEW and loss > _SPIKE * max(history.losses) and not fvu < _NEGLIGIBLE:
            self._warn(
                name,
                "spike",
                f"its reconstruction loss rose to {loss:.3g} at step {step}, "
                f"{loss / median(history.losses):.0f} times the median before: lower lr or clip; if other SAEs spike "
                "at the same step, look at the data",
            )
        history.losses.append(loss)

    def _warn(self, name: str, trouble: Trouble, message: str) -> None:
        warned = self._warned.setdefault(name, [])
        if trouble in self.troubles and trouble not in warned:
            warned.append(trouble)
            rank_zero_warn(f"SAE {name!r}: {message}")

    def state_dict(self) -> dict[str, Any]:
        return self._warned

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._warned = state_dict


def _remedies(sae: SAE, sparsity: float | None) -> list[str]:
    """What may keep latents alive."""
    remedies = ["lower lr"]
    if sparsity:
        lower = f"lower sparsity (λ is {sparsity:.3g})"
        remedies.insert(0, lower if _target(sae) is None else "raise target_l0")
    # What brings dead latents back, where there is such a thing.
    advice = {"k_aux": "raise aux_coefficient", "resample_every": "set resample_every"}
    return remedies + [text for field, text in advice.items() if hasattr(sae.config, field)]


def _target(sae: SAE) -> float | None:
    """The L0 that it is steered to, if it is."""
    return getattr(sae.config, "target_l0", None)


class _History:
    """The recent past of one SAE."""

    def __init__(self) -> None:
        self.lr = math.inf
        self.losses: deque[float] = deque(maxlen=_FEW)
        self.fvu: deque[float] = deque(maxlen=_FEW)
        self.validated_fvu = math.inf
        self.l0: deque[tuple[int, float]] = deque()
        """Steps and what L0 was at them."""
        self.full = False
        """Whether they span as much time as an L0 takes to be stuck."""
        self.sparsity: float | None = None
        """λ, where there is one."""

    def note_l0(self, step: int, l0: float, steps: int) -> None:
        """Keep this L0 and those of the last _STUCK_FOR of training."""
        # One per thousandth of training is enough.
        if not self.l0 or step - self.l0[-1][0] >= steps / 1000:
            self.l0.append((step, l0))
        while self.l0[0][0] <= step - _STUCK_FOR * steps:
            self.full = True
            self.l0.popleft()

    def still_since(self) -> int | None:
        """The first step of the time over which L0 has not moved, or None."""
        values = [l0 for _, l0 in self.l0]
        if not self.full or len(values) < _FEW or max(values) > (1 + _STILL) * min(values):
            return None
        return self.l0[0][0]
