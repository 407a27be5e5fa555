"""`saelight fit --help`: what most runs need, on one screen and at once; `--help all` has every setting."""

_FIT = """usage: saelight fit --config FILE [--config FILE ...] [--SETTING VALUE ...]

Train the SAEs of a config on one stream of activations, validate them, write results.jsonl and print the table.
Each key of the config is a flag too, dots for nesting; of what is given twice, the last holds.
"""
_OTHER = """usage: saelight {command} --config FILE [--ckpt_path FILE] [--SETTING VALUE ...]

{does}.
The config is that of the run: runs/NAME/config.yaml, or the one it was started with.
"""
_CONFIG = """
config
  -c, --config FILE               YAML; several are merged in order (examples in configs/)
  --print_config[=skip_default]   print the config as it would be used, and stop
"""
_SAES = """
SAEs (docs/saes.md, docs/training.md)
  --model.saes.NAME.FIELD VALUE   of the SAE NAME in the config: k, target_l0, lr, d_sae, expansion, init_from, ...
  --model.saes.help VARIANT       the fields of TopK, BatchTopK, AbsTopK, ReLU, Gated, JumpReLU, HardConcrete,
                                  GatedHardConcrete, MatchingPursuit or Matryoshka
  --model.max_tokens N            length of training, beside trainer.max_epochs and max_steps; the first reached ends it
  --model.seed N                  of weights and noise; each SAE's own follows from it and its name
"""
_PREDICT = """
latents
  --model.predict_top N           how many are kept per token
  --to delphi                     write the cache that delphi explains latents from (docs/latents.md)
"""
_DATA = """
data (docs/data.md)
  --data.path PATH                a folder of shards, on a disk or at a URL, or another library's activations
  --data.batch_size N             rows per step, shared by all SAEs
  --data.max_samples N            take no more rows than these
  --data.seed N                   of the rows and their order
  --data.help CLASS               the fields of ActivationDataModule, ModelDataModule or another; --data CLASS takes it
"""
_RUN = """
run (docs/training.md; any argument of lightning.Trainer)
  --trainer.name NAME             the run's folder is runs/NAME; default: the config file's name
  --trainer.accelerator, --trainer.devices, --trainer.precision      cpu or cuda, how many, bf16-mixed or 32-true
"""
_LENGTH = """  --trainer.max_epochs, --trainer.max_steps, --trainer.max_time      length of training
  --trainer.val_check_interval N  steps, or a share of an epoch, between validations
  --trainer.log_every_n_steps N   steps between logged ones
  --trainer.callbacks+ CLASS      StopEarly, Halving, ... or one of Lightning's
  --trainer.logger CLASS          in place of CSV and TensorBoard (docs/logging.md)
  --ckpt_path last                go on with the newest run of this name, or from the checkpoint given
"""
_CHECKPOINT = """  --ckpt_path FILE                a checkpoint of the run; default: the last of the newest run of this name
"""
_MORE = """
saelight {command} --help all lists every setting with its type and default."""


def text(command: str, does: str) -> str:
    """The help of a training command (fit, validate, test or predict), which `does` what it is told to."""
    if command == "fit":
        parts = [_FIT, _CONFIG, _SAES, _DATA, _RUN, _LENGTH]
    else:
        latents = [_PREDICT] if command == "predict" else []
        parts = [_OTHER.format(command=command, does=does.capitalize()), _CONFIG, *latents, _DATA, _RUN, _CHECKPOINT]
    return "".join(parts) + _MORE.format(command=command)
