"""What the Trainer and the front door make of Slurm, without one; tests/slurm has a real one."""

import signal
import warnings

import pytest
import yaml
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy

import saelight
from saelight.cli.main import main
from saelight.run import slurm_job
from tests.support.commands import CONFIG

JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


@pytest.fixture
def job(monkeypatch):
    """The variables of a batch job of two tasks."""
    for key, value in JOB.items():
        monkeypatch.setenv(key, value)


def environment(**settings):
    trainer = saelight.Trainer(accelerator="cpu", devices=2, strategy="ddp", **settings)
    return trainer._accelerator_connector.cluster_environment


def test_a_process_that_srun_did_not_start_waits_for_no_other(job):
    assert type(environment()) is LightningEnvironment


def test_tasks_of_srun_are_ranks_and_lightning_does_not_requeue(job, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    found = environment()
    assert type(found) is SLURMEnvironment
    assert not found.auto_requeue


def test_a_users_own_environment_stays(job, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    own = SLURMEnvironment(auto_requeue=True)
    assert environment(plugins=own) is own
    assert environment(plugins=[own]) is own
    assert slurm_job.plugins(None, DDPStrategy(cluster_environment=own)) is None


def test_srun_on_path_is_no_reason_to_warn(monkeypatch, tmp_path):
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert type(environment()) is LightningEnvironment
        SLURMEnvironment.detect()  # as `fit` does


def test_only_a_job_is_requeued(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not slurm_job.requeue(signal.SIGUSR1)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--launcher", "slurm"], "there is no sbatch on PATH: run this on a login machine"),
        (["--partition", "gpu"], "--partition goes with --launcher slurm"),
        (["--no-wait"], "--no-wait goes with --launcher slurm"),
    ],
)
def test_options_without_slurm_are_refused_in_one_line(args, message, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    sweep = {"name": "tiny", "base": "cfg.yaml", "parameters": {"sae.class_path": {"value": "ReLU"}}}
    (tmp_path / "cfg.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    assert main(["sweep", "run", "sweep.yaml", *args]) == 1
    error = capsys.readouterr().err
    assert error.startswith("saelight: error: ")
    assert error.count("\n") == 1
    assert message in error
