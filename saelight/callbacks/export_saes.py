"""One folder per trained SAE, written when training ends or an SAE is quarantined."""

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

from saelight.run import export


class ExportSAEs(L.Callback):
    """Writes `saes/<name>/` into the run folder (docs/saes.md)."""

    def on_train_end(self, trainer: L.Trainer, bank: L.LightningModule) -> None:
        bank.read_quarantine()
        for i, name in enumerate(bank.names):
            if i not in bank.inactive:
                self._write(trainer, bank, name)

    def on_quarantine(self, trainer: L.Trainer, bank: L.LightningModule, name: str, what: str) -> None:
        """The bank's word that an SAE has met a non-finite loss or gradient."""
        message = f"SAE {name!r} is quarantined: {what}. Its siblings go on. "
        if all(p.isfinite().all() for p in bank[name].parameters()):
            self._write(trainer, bank, name, state="quarantined")
            message += f"Its last finite weights are in {export.folder_for(trainer, name)}; a lower lr or clip may help."
        else:
            message += "Its weights are not finite, so none are exported; the run's last checkpoint may be older."
        rank_zero_warn(message)

    def on_retire(self, trainer: L.Trainer, bank: L.LightningModule, name: str, why: str) -> None:
        """The bank's word that an SAE's training was ended early."""
        self._write(trainer, bank, name, state="retired")

    def _write(self, trainer: L.Trainer, bank: L.LightningModule, name: str, state: str = "finished") -> None:
        if trainer.is_global_zero and not trainer.fast_dev_run:
            training = {"state": state, "steps": trainer.global_step, "tokens": bank.tokens_seen}
            export.write(
                bank[name],
                export.folder_for(trainer, name),
                name=name,
                seed=bank.seeds[bank.names.index(name)],
                normalisation=bank.normalisation,
                target_normalisation=bank.target_normalisation,
                source=getattr(trainer.datamodule, "source", {}),
                target_source=getattr(trainer.datamodule, "target_source", None),
                training=training,
            )
