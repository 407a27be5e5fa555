"""fit and predict on two processes, from the command line: one run folder, one file per SAE."""

import torch
import yaml
from safetensors.torch import load_file

from tests.support.commands import changed
from tests.support.processes import script


def test_two_processes_share_a_run(tmp_path):
    two = {"devices": 2, "strategy": "ddp", "max_epochs": 1, "accelerator": "cpu"}
    (tmp_path / "cfg.yaml").write_text(yaml.safe_dump(changed(trainer=two)))
    out = script(tmp_path, "fit", "--config", "cfg.yaml")
    assert out.count("the SAEs are in runs/cfg/saes/") == 1
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["cfg"]
    predictions = []
    for processes in ("2", "1"):
        strategy = "ddp" if processes == "2" else "auto"
        args = ["--trainer.devices", processes, "--trainer.strategy", strategy, "--data.predict_rows", "777"]
        script(tmp_path, "predict", "--config", "cfg.yaml", *args)
        predictions.append(load_file(tmp_path / "runs" / "cfg" / "predictions" / "topk.safetensors"))
    assert predictions[0]["values"].shape == (777, 16)
    torch.testing.assert_close(predictions[0]["values"], predictions[1]["values"])
    fired = predictions[1]["values"] > 0
    assert torch.equal(predictions[0]["indices"][fired], predictions[1]["indices"][fired])
