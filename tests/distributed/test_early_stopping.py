"""Two processes end the same SAE at the same validation, and go on together."""

import json

import pytest
import yaml

from tests.support.commands import changed
from tests.support.processes import script


@pytest.mark.slow
def test_two_processes_end_the_same_sae(tmp_path):
    two = {"devices": 2, "strategy": "ddp", "max_epochs": 3, "accelerator": "cpu", "val_check_interval": 0.5}
    two["callbacks"] = [{"class_path": "StopEarly", "init_args": {"patience": 2}}]
    config = changed(trainer=two)
    still = {"k": 4, "lr": 1e-12, "schedule": {"kind": "constant", "warmup": 0}}
    config["model"]["saes"] |= {"still": {"class_path": "TopK", "init_args": still}}
    (tmp_path / "cfg.yaml").write_text(yaml.safe_dump(config))
    out = script(tmp_path, "fit", "--config", "cfg.yaml")
    # `steps` are those it trained. Five batches an epoch for each process, a validation after the second and the fourth.
    why = "no progress in 2 validations, at step 7"
    assert out.count(f"retired: {why}") == 1
    rows = map(json.loads, (tmp_path / "runs" / "cfg" / "results.jsonl").read_text().splitlines())
    assert {row["name"]: (row["state"], row["reason"], row["steps"]) for row in rows} == {
        "relu": ("finished", None, 15),
        "topk": ("finished", None, 15),
        "still": ("retired", why, 7),
    }
    exported = json.loads((tmp_path / "runs" / "cfg" / "saes" / "still" / "config.json").read_text())["training"]
    assert "fvu" in exported.pop("metrics")
    assert exported == {"state": "retired", "reason": why, "steps": 7, "tokens": 1400}
