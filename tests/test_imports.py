"""Importing saelight changes nothing in the process: what the command needs, the command sets."""

import subprocess
import sys

IMPORT = """
import copy, os, sys
import jsonargparse._common as common, jsonargparse._optionals as optionals
import torch, lightning.pytorch.cli, torchmetrics, tensorboard

def state():
    kept = [value for module in (common, optionals) for value in vars(module).values() if isinstance(value, dict | set)]
    return copy.deepcopy((dict(os.environ), sys.argv, [list(value) for value in kept], common.parsing_settings,
                          getattr(optionals, "_docstring_parse_options", None)))

sys.argv.append("--help")
before = state()
import saelight.bank, saelight.run.export, saelight.run.trainer, saelight.saes, saelight.sweep.plan.sae_checks
assert state() == before
"""


def test_importing_changes_nothing():
    subprocess.run([sys.executable, "-c", IMPORT], check=True)
