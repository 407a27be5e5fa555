"""Straight from a model on two processes: each has documents of its own, and both go on after an interruption."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from saelight.data.shards.reader import ShardedRows
from tests.data.folders import read
from tests.data.from_model import SETTINGS, write_text
from tests.support import letter_models
from tests.support.commands import CONFIG
from tests.support.processes import script


@pytest.mark.slow
def test_two_processes_read_documents_of_their_own_and_resume(tmp_path):
    two = {"devices": 2, "strategy": "ddp", "max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False}
    model, files = letter_models.llama(tmp_path / "m"), write_text(tmp_path / "t", 200)
    settings = SETTINGS | {"model": model, "files": [files], "rows": 3200}
    config = CONFIG | {"trainer": two, "data": {"class_path": "ModelDataModule", "init_args": settings}}
    (tmp_path / "cfg.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "stopped.yaml").write_text(yaml.safe_dump(config))
    script(tmp_path, "fit", "--config", "cfg.yaml", "--data.save_to", "saved")
    documents = []
    for rank in (0, 1):
        rows = ShardedRows(tmp_path / "saved" / f"rank-{rank}")
        assert rows.n_rows == 1600
        documents.append(set(rows.column("document_ids", 0, 1600).tolist()))
    assert not documents[0] & documents[1]
    assert all((a - b) % 2 == 0 for own in documents for a in own for b in own)

    stop = ["--trainer.callbacks+=tests.support.callbacks.Terminate", "--trainer.callbacks.init_args.step=13"]
    stop += ["--data.save_to", "again"]
    command = [sys.executable, "-W", "ignore", Path(sys.executable).parent / "saelight", "fit", "--config", "stopped.yaml"]
    done = subprocess.run([*command, *stop], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert "Stopped after step 13" in done.stderr + done.stdout
    script(tmp_path, "fit", "--config", "runs/stopped/config.yaml", "--ckpt_path", "last")
    for rank in (0, 1):
        x_ND, again_ND = (read(tmp_path / folder / f"rank-{rank}")[0] for folder in ("saved", "again"))
        assert torch.equal(x_ND, again_ND)
    for name in CONFIG["model"]["saes"]:
        whole, resumed = (load_file(tmp_path / f"runs/{run}/saes/{name}/sae.safetensors") for run in ("cfg", "stopped"))
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
