"""fit | validate | test | predict: LightningCLI with saelight's Trainer, errors in one line, and no silent surprises."""

import copy
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import ActionConfigFile, ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

from saelight.bank import SAEBank
from saelight.bank.resume import check_same_config
from saelight.files import write_text
from saelight.parsing.messages import OneLineErrors, refuse_duplicate_keys
from saelight.run.build import silence_lightning
from saelight.run.trainer import Trainer


class _Parser(OneLineErrors, LightningArgumentParser):
    pass


class _SaveConfig(SaveConfigCallback):
    """Writes the run's whole `config.yaml` once it has a folder; the one of a resumed run stays."""

    def setup(self, trainer: Trainer, pl_module: SAEBank, stage: str) -> None:
        pass

    def on_fit_start(self, trainer: Trainer, pl_module: SAEBank) -> None:
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
        # Lightning is about to replace the model's config by the checkpoint's, explicit flags included.
        self._given = copy.deepcopy(self.config[self.config.subcommand])

    def before_instantiate_classes(self) -> None:
        config = self.config[self.config.subcommand]
        # The widths are the data's to tell, not the config's.
        given = ({k: v for k, v in vars(c.model).items() if k not in ("d_in", "d_out")} for c in (config, self._given))
        check_same_config(*given)
        if config.trainer.name is None:
            config.trainer.name = Path(config.config[-1].relative).stem if config.config else "run"
        if self.config.subcommand != "fit" and config.ckpt_path is None:
            config.ckpt_path = "last"


def run() -> None:
    """Run the training command that the command line names."""
    refuse_duplicate_keys()
    silence_lightning()
    _CLI(
        SAEBank,
        trainer_class=Trainer,
        subclass_mode_data=True,
        save_config_callback=_SaveConfig,
        seed_everything_default=False,
        auto_configure_optimizers=False,
        parser_kwargs={"prog": "saelight"},
    )
