# What `saelight.<name>` is, for type checkers and editors: `__init__.py` finds the same names when they are first used.
from saelight import convert as convert
from saelight import metrics as metrics
from saelight import saes as saes
from saelight import sweep as sweep
from saelight.bank import SAEBank as SAEBank
from saelight.callbacks import Halving as Halving
from saelight.callbacks import SAECallback as SAECallback
from saelight.callbacks import StopEarly as StopEarly
from saelight.convert.reading import load as load
from saelight.data.datamodule import ActivationDataModule as ActivationDataModule
from saelight.data.datamodule import ModelDataModule as ModelDataModule
from saelight.data.datamodule import SyntheticDataModule as SyntheticDataModule
from saelight.data.shards.writer import ShardWriter as ShardWriter
from saelight.errors import UserError as UserError
from saelight.evals.evaluate_saes import evaluate as evaluate
from saelight.loggers import PerSAE as PerSAE
from saelight.run.trainer import Trainer as Trainer
from saelight.saes import *  # noqa: F403  # the variants: a new one is a line there, and none here
from saelight.sweep.store.results_table import results as results
