"""From the command line: `data.target_path` makes a bank of transcoders, whose width nobody has to say twice."""

import torch
import yaml

from tests.data.folders import write
from tests.support.commands import saelight_


def test_the_targets_width_goes_to_the_bank_and_stays_on_resume(tmp_path, capsys):
    write(tmp_path / "x", torch.randn(1200, 8), document=50)
    write(tmp_path / "y", torch.randn(1200, 5), document=50)
    config = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {"saes": {"relu": {"class_path": "ReLU", "init_args": {"expansion": 2}}}},
        "data": {"class_path": "ActivationDataModule", "init_args": {"path": "x", "target_path": "y", "batch_size": 100}},
    }
    (tmp_path / "cfg.yaml").write_text(yaml.safe_dump(config))
    assert saelight_("fit", "--config", "cfg.yaml") == 0
    widths = [
        torch.load(tmp_path / "runs/cfg/checkpoints/last.ckpt", weights_only=True)["hyper_parameters"][k]
        for k in ("d_in", "d_out")
    ]
    assert widths == [8, 5]
    assert saelight_("fit", "--config", "runs/cfg/config.yaml", "--trainer.name", "again") == 0
    assert saelight_("validate", "--config", "cfg.yaml") == 0
    assert saelight_("fit", "--config", "cfg.yaml", "--ckpt_path", "last", "--data.target_path", "null") == 1
    assert "model.d_out is 5 there and None here" in capsys.readouterr().err
