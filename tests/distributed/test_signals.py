"""A signal that reaches one of two processes stops both, after the same step, with a checkpoint of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml

from tests.support.commands import changed

STEP = 2


class EndOne(L.Callback):
    """SIGTERM to the second process alone, as its machine might be asked to end first."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_rank == 1 and trainer.global_step == STEP - 1:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both(tmp_path):
    two = {"devices": 2, "strategy": "ddp", "max_epochs": 3, "accelerator": "cpu"}
    (tmp_path / "cfg.yaml").write_text(yaml.safe_dump(changed(trainer=two)))
    command = [sys.executable, "-W", "ignore", Path(sys.executable).parent / "saelight", "fit", "--config", "cfg.yaml"]
    own = "--trainer.callbacks+=tests.distributed.test_signals.EndOne"
    done = subprocess.run([*command, own], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert f"Stopped after step {STEP}; --ckpt_path last continues." in done.stderr + done.stdout
    saved = torch.load(tmp_path / "runs" / "cfg" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == STEP
