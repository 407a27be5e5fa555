"""Training as a job of Slurm's: which processes take part, and the way back to the queue.

What Slurm does (seen on 22.05), and what follows from it:

- Before the time limit it sends SIGUSR1 to the job's steps, where `--signal=USR1@120` asks for it. Nothing requeues the
  job then but the job itself.
- Preempting a job in a partition with a grace time, it sends the steps SIGTERM and requeues the job when the time is
  over. A job that has saved its checkpoint and ends before that counts as failed, and is not requeued: so it asks for it.
- Preempting without grace, on `scontrol requeue` and on `scancel`, it has decided already: the job is completing when its
  steps get SIGTERM. To requeue then would be once too often, or would raise what a user cancelled.
"""

import os
import re
import signal
import subprocess
from typing import Any

from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.utilities import rank_zero_info


def plugins(given: Any, strategy: Any) -> Any:
    """The Trainer's plugins, with the cluster environment that fits a job of Slurm's where the user named none."""
    listed = list(given) if isinstance(given, list | tuple) else [given] if given else []
    named = [plugin for plugin in listed if isinstance(plugin, ClusterEnvironment)]
    if named or getattr(strategy, "cluster_environment", None):
        return given
    if "SLURM_JOB_ID" not in os.environ or TorchElasticEnvironment.detect():
        return given
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        # Lightning's own requeueing saves inside the signal handler, in the middle of a step: no exact place to go on from.
        return [*listed, SLURMEnvironment(auto_requeue=False)]
    # One process, which starts the others itself: without srun, Slurm's variables would tell Lightning of ranks that no
    # one has started, and it would wait for them.
    return [*listed, LightningEnvironment()]


def requeue(number: int) -> bool:
    """Put this process's job back into the queue, if it is one and the signal it was stopped by means that; whether it is
    there. Slurm then ends the job, with SIGTERM first."""
    if "SLURM_JOB_ID" not in os.environ:
        return False
    if number != signal.SIGUSR1 and not (number == signal.SIGTERM and _is_preempted()):
        return False
    code, output = _scontrol("requeue")
    rank_zero_info(f"Slurm job {_job()} " + (f"could not be requeued: {output}" if code else "goes back to the queue."))
    return code == 0


def _is_preempted() -> bool:
    """Whether Slurm has told the job to make room, and not yet taken it."""
    _, output = _scontrol("show", "job")
    fields = dict(re.findall(r"(\w+)=(\S*)", output))
    return fields.get("JobState") == "RUNNING" and fields.get("PreemptTime", "None") != "None"


def _job() -> str:
    # The number of an array alone would mean all its jobs.
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def _scontrol(*command: str) -> tuple[int, str]:
    try:
        done = subprocess.run(["scontrol", *command, _job()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        return 1, str(error)
    return done.returncode, done.stdout.strip()
