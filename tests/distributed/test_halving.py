"""Two processes end the same SAEs at the same rung, and go on together."""

import json

import pytest
import yaml

from tests.support.commands import changed
from tests.support.processes import script


@pytest.mark.slow
def test_two_processes_end_the_same_saes(tmp_path):
    two = {"devices": 2, "strategy": "ddp", "max_epochs": 3, "accelerator": "cpu", "val_check_interval": 0.5}
    two["callbacks"] = [{"class_path": "Halving", "init_args": {"rungs": [6]}}]
    config = changed(trainer=two)
    still = {"k": 4, "lr": 1e-12, "schedule": {"kind": "constant", "warmup": 0}}
    config["model"]["saes"] |= {name: {"class_path": "TopK", "init_args": still} for name in ("still", "idle")}
    (tmp_path / "cfg.yaml").write_text(yaml.safe_dump(config))
    out = script(tmp_path, "fit", "--config", "cfg.yaml")
    lines = (tmp_path / "runs" / "cfg" / "results.jsonl").read_text().splitlines()
    rows = {row["name"]: row for row in map(json.loads, lines)}
    assert {name for name, row in rows.items() if row["state"] == "finished"} == {"relu", "topk"}
    # Five batches an epoch for each process, a validation after the second and the fourth: steps 2, 4 and 7.
    for name in ("still", "idle"):
        assert rows[name]["reason"].endswith(" of 4 at step 7")
        assert out.count("retired: " + rows[name]["reason"]) == 1
        exported = json.loads((tmp_path / "runs" / "cfg" / "saes" / name / "config.json").read_text())["training"]
        assert "fvu" in exported.pop("metrics")
        assert exported == {"state": "retired", "reason": rows[name]["reason"], "steps": 7, "tokens": 1400}
