"""`srun saelight fit`: the tasks of a job are the ranks of a run, and the job goes on exactly where it was stopped."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from saelight.run import run_folder
from tests.support.checkpoints import assert_same_state
from tests.support.processes import wait_until
from tests.support.sweeps import LONG

pytestmark = pytest.mark.slurm

CONFIG = LONG | {
    "model": {"saes": {"topk": {"class_path": "TopK", "init_args": {"expansion": 2, "k": 2}}}},
    "trainer": LONG["trainer"] | {"strategy": "ddp", "max_steps": 300, "val_check_interval": 100},
}
# Two nodes, which are this machine here.
SCRIPT = """\
#!/bin/bash
#SBATCH --partition=debug --nodes=2 --ntasks-per-node=1 --requeue --open-mode=append --output=log.txt
export MASTER_ADDR=127.0.0.1 OMP_NUM_THREADS=1
last=runs/job/checkpoints/last.ckpt
srun {python} -m saelight fit --config config.yaml --trainer.num_nodes 2 --trainer.devices 1 --trainer.folder runs/job \\
    $([ -f $last ] && echo --ckpt_path $last)
"""


def test_a_run_on_two_nodes_is_requeued_and_goes_on_exactly(cluster, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("config.yaml").write_text(yaml.safe_dump(CONFIG))
    Path("job.sh").write_text(SCRIPT.format(python=sys.executable))
    job = cluster("sbatch", "--parsable", "job.sh")
    wait_until(Path("runs/job/progress.json").exists)
    cluster("scancel", "--signal=USR1", job)
    wait_until(lambda: "goes back to the queue" in Path("log.txt").read_text())
    wait_until(Path("runs/job/results.jsonl").exists, 90)
    assert "Restored all states" in Path("log.txt").read_text()
    command = [sys.executable, "-m", "saelight", "fit", "--config", "config.yaml", "--trainer.devices", "2"]
    subprocess.run([*command, "--trainer.folder", "runs/unbroken"], check=True, capture_output=True)
    assert_same_state(*(run_folder.checkpoint(Path("runs") / name) for name in ("job", "unbroken")))
