"""Trainer, bank and data from a complete config, in Python: what the command line builds, without one."""

from typing import Any

import lightning as L
from jsonargparse import ArgumentError
from lightning.pytorch.cli import LightningArgumentParser

# A config names data modules and callbacks in short once they are imported.
import saelight.data.datamodule  # noqa: F401
from saelight.bank import SAEBank
from saelight.callbacks import *  # noqa: F403
from saelight.errors import UserError
from saelight.parsing.messages import explain
from saelight.run.quiet import silence_lightning
from saelight.run.trainer import Trainer
from saelight.saes import SAEConfig


def build(config: dict[str, Any]) -> tuple[Trainer, SAEBank, L.LightningDataModule]:
    """Trainer, bank and data of a complete config, for a training that writes nothing.

    Raises:
        UserError: for what a class does not take.
    """
    silence_lightning()
    parser = LightningArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_class_arguments(Trainer, "trainer", fail_untyped=False)
    parser.add_lightning_class_args(L.LightningDataModule, "data", subclass_mode=True)
    parser.add_argument("--saes", type=dict[str, SAEConfig])
    model = dict(config["model"])
    sections = {"trainer": (config.get("trainer") or {}) | {"root": None, "folder": None}, "data": config["data"]}
    try:
        built = parser.instantiate_classes(parser.parse_object(sections | {"saes": model.pop("saes")}))
    except ArgumentError as error:
        raise UserError(explain(str(error), [])) from None
    data = built.data
    widths = {"d_in": data.d_in, "d_out": getattr(data, "d_out", None)}
    return built.trainer, SAEBank(saes=built.saes, **(model | widths)), data
