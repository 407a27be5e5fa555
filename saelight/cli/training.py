"""fit | validate | test | predict: LightningCLI with saelight's Trainer, errors in one line, and no silent surprises."""

import sys
from pathlib import Path
from typing import Any, Literal

import lightning as L
from jsonargparse import set_parsing_settings
from lightning.pytorch.cli import ActionConfigFile, ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

# It imports what a config may name in short.
import saelight.run.build  # noqa: F401
from saelight.bank import SAEBank
from saelight.bank.trainer_attributes import undeclared
from saelight.callbacks import WriteDelphiCache
from saelight.callbacks.top_latents import WritesPredictions
from saelight.errors import UserError
from saelight.files import check_path, write_text
from saelight.parsing import config_files, yaml_files
from saelight.parsing.messages import OneLineParser, read_yaml_strictly
from saelight.run import lightnings_own
from saelight.run.quiet import silence_lightning
from saelight.run.trainer import Trainer
from saelight.saes.plain_data import variants


class _Parser(OneLineParser, LightningArgumentParser):
    """A training's: SAEs of several config files are merged by name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._saes: dict[str, Any] = {}

    def read_config(self, path: str) -> dict[str, Any]:
        config = config_files.merge_saes(self._saes, config_files.read(path), path)
        model = config.get("model")
        if isinstance(model, dict):
            self._saes = model.get("saes") or self._saes
        return config

    def dump(self, *args: Any, skip_default: bool = False, **kwargs: Any) -> str:
        text = super().dump(*args, skip_default=skip_default, **kwargs)
        if not skip_default:
            return text
        # jsonargparse does not look for defaults inside of what is kept by name.
        config = yaml_files.parse(text)
        ours = {kind.__name__: kind for kind in variants() if kind.__module__.startswith("saelight.")}
        for spec in config.get("model", {}).get("saes", {}).values():
            if kind := ours.get(spec["class_path"].rpartition(".")[2]):
                defaults = kind().spec()["init_args"]
                spec["init_args"] = {k: v for k, v in spec.get("init_args", {}).items() if v != defaults[k]}
        return yaml_files.dump(config)


class _SaveConfig(SaveConfigCallback):
    """Writes the run's whole `config.yaml` once it has a folder; the one of a resumed run stays."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        pass

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(trainer, Trainer)
        if trainer.folder is None:  # with no root, nothing is written
            return
        path = trainer.folder / "config.yaml"
        if trainer.is_global_zero and not path.exists():
            write_text(path, self.parser.dump(self.config, skip_none=False))


_SEEDS = "set model.seed, of the SAEs' weights and noise, and data.seed, of the rows and their order"


_TO = (
    "What to write: top, each token's strongest latents (predictions/<sae>.safetensors), or delphi, all activations as "
    "delphi's cache of latents, for automatic interpretation (delphi/latents/<sae>)."
)


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

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--seed_everything", type=Any, default=False, help=f"Not taken: {_SEEDS}.")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.d_in", "model.d_in", apply_on="instantiate")
        if sys.argv[1:2] == ["predict"]:
            parser.add_argument("--to", type=Literal["top", "delphi"], default="top", help=_TO)
        # A data module without targets need not say so.
        parser.link_arguments("data", "model.d_out", lambda data: getattr(data, "d_out", None), apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand]
        if config.get("seed_everything") not in (None, False):
            raise UserError(f"seed_everything would seed nothing here: {_SEEDS}")
        if config.get("data") is None:
            raise UserError(
                "which data? give data.class_path and its init_args, or --data.path, a folder of shards or a file"
            )
        # Lightning would replace the model's config by the checkpoint's, explicit flags included, and import whatever that
        # names. The two have to be equal anyway: the bank compares them when it loads the checkpoint.
        self._ckpt_path = self.config[self.config.subcommand].pop("ckpt_path")

    def instantiate_classes(self) -> None:
        with lightnings_own.instantiating():
            super().instantiate_classes()
        if self.config[self.config.subcommand].get("to") == "delphi":
            callbacks = undeclared(self.trainer).callbacks
            callbacks[:] = [*(one for one in callbacks if not isinstance(one, WritesPredictions)), WriteDelphiCache()]

    def before_instantiate_classes(self) -> None:
        config = self.config[self.config.subcommand]
        config.ckpt_path = self._ckpt_path
        if config.trainer.name is None:
            config.trainer.name = Path(config.config[-1].relative).stem if config.config else "run"
        if self.config.subcommand != "fit" and config.ckpt_path is None:
            config.ckpt_path = "last"


def run() -> None:
    """Run the training command that the command line names."""
    for word in sys.argv:
        check_path(word, "the argument")
    read_yaml_strictly()
    silence_lightning()
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
