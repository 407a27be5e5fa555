"""Lightning's own Trainer over a few epochs, and checkpoints in their middle."""

import lightning.pytorch as pl

EPOCHS = 3
HOOKS = ["on_train_batch_end", "on_train_epoch_end", "on_validation_end"]


class Save(pl.Callback):
    """Saves at each of the chosen hooks; remembers how many batches had been trained on."""

    def __init__(self, folder, hook):
        self.folder, self.saved = folder, {}
        setattr(self, hook, self._save)

    def _save(self, trainer, module, *_):
        if trainer.sanity_checking:
            return
        path = self.folder / f"{len(self.saved)}.ckpt"
        trainer.save_checkpoint(path)
        self.saved[path] = len(module.seen)


def trainer(tmp_path, **fields):
    length = {} if "max_steps" in fields else {"max_epochs": EPOCHS}
    return pl.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **length,
        **fields,
    )
