"""One folder per trained SAE, written when training ends or an SAE is quarantined."""

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

from saelight.bank.sae_bank import SAEBank
from saelight.bank.sae_callback import SAECallback
from saelight.bank.trainer_attributes import undeclared
from saelight.callbacks.declarations import NoSettings
from saelight.run import export


class ExportSAEs(NoSettings, SAECallback):
    """Writes `saes/<name>/` into the run folder (docs/saes.md)."""

    def on_fit_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        # Not at the end of training: a run that was killed when all was trained and not yet written only comes here.
        assert isinstance(bank, SAEBank)
        bank.read_quarantine()
        for i, name in enumerate(bank.names):
            if i not in bank.inactive:
                self._write(trainer, bank, name)

    def on_quarantine(self, trainer: L.Trainer, bank: L.LightningModule, name: str, reason: str) -> None:
        assert isinstance(bank, SAEBank)
        message = f"SAE {name!r} is quarantined: {reason}. Its siblings go on. "
        if all(p.isfinite().all() for p in bank[name].parameters()):
            self._write(trainer, bank, name)
            message += f"Its last finite weights are in {export.folder_for(trainer, name)}; a lower lr or clip may help."
        else:
            message += "Its weights are not finite, so none are exported; the run's last checkpoint may be older."
        rank_zero_warn(message)

    def on_retire(self, trainer: L.Trainer, bank: L.LightningModule, name: str, reason: str) -> None:
        assert isinstance(bank, SAEBank)
        self._write(trainer, bank, name)

    def _write(self, trainer: L.Trainer, bank: SAEBank, name: str) -> None:
        if trainer.is_global_zero and not undeclared(trainer).fast_dev_run:
            training = bank.result(name)._asdict() | {"steps": trainer.global_step, "tokens": bank.tokens_seen}
            export.write(
                bank[name],
                export.folder_for(trainer, name),
                name=name,
                seed=bank.seeds[bank.names.index(name)],
                normalisation=bank.normalisation,
                target_normalisation=bank.target_normalisation,
                source=getattr(undeclared(trainer).datamodule, "source", {}),
                target_source=getattr(undeclared(trainer).datamodule, "target_source", None),
                training=training,
            )
