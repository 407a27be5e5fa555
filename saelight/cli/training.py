"""fit | validate | test | predict: LightningCLI with saelight's Trainer, errors in one line, and no silent surprises."""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import ArgumentError, set_parsing_settings
from lightning.pytorch.cli import ActionConfigFile, ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

import saelight.data.datamodule  # noqa: F401  (its data modules' short names resolve once they are imported)
from saelight.bank import SAEBank
from saelight.errors import UserError
from saelight.files import write_text
from saelight.parsing.messages import OneLineErrors, explain, refuse_duplicate_keys
from saelight.run.trainer import Trainer
from saelight.saes import SAEConfig

_NOISE = ("💡", "TPU available", "`weights_only` was not set")


class _Parser(OneLineErrors, LightningArgumentParser):
    pass


class _SaveConfig(SaveConfigCallback):
    """Writes the run's whole `config.yaml` once it has a folder; the one of a resumed run stays."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        pass

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(trainer, Trainer)
        assert trainer.folder is not None
        path = trainer.folder / "config.yaml"
        if trainer.is_global_zero and not path.exists():
            write_text(path, self.parser.dump(self.config, skip_none=False))


class _CLI(LightningCLI):
    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        # Those not asked for would take half a second to build.
        known = LightningCLI.subcommands()
        return {command: known[command] for command in sys.argv[1:2] if command in known} or known

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = _Parser(**kwargs | {"allow_abbrev": False})
        parser.add_argument("-c", "--config", action=ActionConfigFile, help="A YAML config; several are merged in order.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.d_in", "model.d_in", apply_on="instantiate")
        # A data module without targets need not say so.
        parser.link_arguments("data", "model.d_out", lambda data: getattr(data, "d_out", None), apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        # Lightning would replace the model's config by the checkpoint's, explicit flags included, and import whatever that
        # names. The two have to be equal anyway: the bank compares them when it loads the checkpoint.
        self._ckpt_path = self.config[self.config.subcommand].pop("ckpt_path")

    def before_instantiate_classes(self) -> None:
        config = self.config[self.config.subcommand]
        config.ckpt_path = self._ckpt_path
        if config.trainer.name is None:
            config.trainer.name = Path(config.config[-1].relative).stem if config.config else "run"
        if self.config.subcommand != "fit" and config.ckpt_path is None:
            config.ckpt_path = "last"


def run() -> None:
    """Run the training command that the command line names."""
    refuse_duplicate_keys()
    _silence_lightning()
    # Help shows the fields' docstrings; reading them off the sources takes half a second.
    explains = any("help" in word or "print_config" in word for word in sys.argv)
    set_parsing_settings(docstring_parse_attribute_docstrings=explains)
    _CLI(
        SAEBank,
        trainer_class=Trainer,
        subclass_mode_data=True,
        save_config_callback=_SaveConfig,
        seed_everything_default=False,
        auto_configure_optimizers=False,
        parser_kwargs={"prog": "saelight"},
    )


def build(config: dict[str, Any]) -> tuple[Trainer, SAEBank, L.LightningDataModule]:
    """Trainer, bank and data of a complete config, for a training that writes nothing.

    Raises:
        UserError: for what a class does not take.
    """
    _silence_lightning()
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


def _silence_lightning() -> None:
    """Hold back what Lightning says to everyone and a user of saelight can do nothing about."""
    # Lightning calls methods that jsonargparse will rename.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
    for name in ("lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(lambda record: not record.getMessage().startswith(_NOISE))
