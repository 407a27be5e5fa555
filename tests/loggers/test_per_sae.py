"""PerSAE with CSV and TensorBoard: who gets what, and what a killed run leaves behind."""

import csv
import pickle
from dataclasses import dataclass

import lightning as L
import pytest
import torch
import yaml
from jsonargparse import auto_cli
from lightning.pytorch.loggers import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from saelight.errors import UserError
from saelight.loggers import PerSAE

SAES = {f"topk-{k}": {"class_path": "saelight.saes.TopK", "init_args": {"k": k}} for k in (8, 32)}


def rows(folder, sae):
    with (folder / "logs" / sae / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def points(folder, sae, tag):
    events = EventAccumulator(str(folder / "logs" / sae)).Reload()
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]


def logger_for(folder, **kwargs):
    logger = PerSAE(folder, **kwargs)
    logger.set_saes(SAES)
    return logger


def test_each_sae_gets_its_own_under_one_tag(tmp_path):
    logger = logger_for(tmp_path)
    logger.log_metrics({"topk-8/train/l0": 8, "topk-32/train/l0": torch.tensor(32.0), "epoch": 0}, step=5)
    logger.finalize("success")
    for sae, value in (("topk-8", 8), ("topk-32", 32)):
        assert rows(tmp_path, sae) == [{"step": "5", "train/l0": str(float(value))}]
        assert points(tmp_path, sae, "train/l0") == [(5, value)]
        assert yaml.safe_load((tmp_path / "logs" / sae / "hparams.yaml").read_text()) == SAES[sae]


def test_tensorboards_hparams_tab_has_each_saes_settings(tmp_path):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    logger = PerSAE(tmp_path, to="tensorboard")
    logger.set_saes({"a": {"class_path": "saelight.saes.TopK", "init_args": {"k": 8, "skip": False, "betas": [0.9, 0.99]}}})
    logger.set_saes({"b": {"class_path": "saelight.saes.ReLU", "init_args": {"lr": 0.003, "schedule": {"kind": "cosine"}}}})
    logger.log_hyperparams({"seed": 3})
    logger.log_metrics({"tokens": 3}, step=1)
    logger.finalize("success")

    def told(run, part):
        events = EventAccumulator(str(tmp_path / "logs" / run)).Reload()
        data = events.summary_metadata[f"_hparams_/{part}"].plugin_data.content
        return getattr(HParamsPluginData.FromString(data), part)

    rows = {run: told(run, "session_start_info").hparams for run in ("a", "b")}
    rows = {run: {key: getattr(v, v.WhichOneof("kind")) for key, v in row.items()} for run, row in rows.items()}
    assert rows["a"] == {"variant": "TopK", "k": 8, "skip": False, "betas": "[0.9, 0.99]"}
    assert rows["b"] == {"variant": "ReLU", "lr": 0.003, "schedule.kind": "cosine"}
    assert {metric.name.tag for metric in told("a", "experiment").metric_infos} == {"val/fvu", "val/l0", "val/dead"}
    assert "_hparams_/experiment" not in EventAccumulator(str(tmp_path / "logs" / "bank")).Reload().summary_metadata


def test_what_belongs_to_no_sae_is_the_banks_and_epoch_is_nobodys(tmp_path):
    logger = logger_for(tmp_path, to=["csv"])
    logger.log_metrics({"throughput/tokens_per_second": 1e6, "tokens": 100, "epoch": 0}, step=1)
    logger.log_metrics({"epoch": 1}, step=2)
    assert rows(tmp_path, "bank") == [{"step": "1", "throughput/tokens_per_second": "1000000.0", "tokens": "100.0"}]
    assert not (tmp_path / "logs" / "topk-8" / "metrics.csv").exists()


def test_without_known_saes_the_first_component_is_one(tmp_path):
    PerSAE(tmp_path, to="csv").log_metrics({"a/l0": 1, "tokens": 2}, step=0)
    assert rows(tmp_path, "a") == [{"step": "0", "l0": "1.0"}]
    assert rows(tmp_path, "bank") == [{"step": "0", "tokens": "2.0"}]


def test_columns_that_come_later_cost_no_rows(tmp_path):
    logger = logger_for(tmp_path, to=["csv"])
    logger.log_metrics({"topk-8/train/l0": 1}, step=1)
    logger.log_metrics({"topk-8/val/fvu": 0.5}, step=1)
    logger.log_metrics({"topk-8/train/l0": 3}, step=2)
    assert [list(row.values()) for row in rows(tmp_path, "topk-8")] == [["1", "1.0", ""], ["1", "", "0.5"], ["2", "3.0", ""]]


@pytest.mark.parametrize("opened_before", [True, False])
def test_resuming_forgets_what_the_killed_run_wrote_too_much(tmp_path, opened_before):
    killed = logger_for(tmp_path)
    for step in range(1, 7):
        killed.log_metrics({"topk-8/train/l0": step, "tokens": step}, step)
    killed.save()  # and no more of it
    resumed = PerSAE(tmp_path)
    if opened_before:
        resumed.set_saes(SAES)
    resumed.resume(4)
    resumed.set_saes(SAES)
    for step in range(5, 9):
        resumed.log_metrics({"topk-8/train/l0": 10 * step, "tokens": step}, step)
    resumed.finalize("success")
    expected = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 50), (6, 60), (7, 70), (8, 80)]
    assert [(int(row["step"]), float(row["train/l0"])) for row in rows(tmp_path, "topk-8")] == expected
    assert points(tmp_path, "topk-8", "train/l0") == expected
    assert [row["step"] for row in rows(tmp_path, "bank")] == list("12345678")
    assert points(tmp_path, "bank", "tokens") == [(step, step) for step in range(1, 9)]


def test_a_row_cut_in_half_is_dropped_and_not_written_on(tmp_path):
    logger_for(tmp_path, to=["csv"]).log_metrics({"topk-8/l0": 1, "topk-8/l1": 2}, step=1)
    path = tmp_path / "logs" / "topk-8" / "metrics.csv"
    path.write_text(path.read_text() + "2,1.")
    logger_for(tmp_path, to=["csv"]).log_metrics({"topk-8/l0": 5, "topk-8/l1": 6}, step=3)
    assert path.read_text() == "step,l0,l1\n1,1.0,2.0\n3,5.0,6.0\n"


@pytest.mark.parametrize("left", ["", "step,l"])
def test_a_file_without_even_a_header_begins_anew(tmp_path, left):
    path = tmp_path / "logs" / "topk-8" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text(left)
    logger = logger_for(tmp_path, to=["csv"])
    logger.resume(3)
    logger.log_metrics({"topk-8/l0": 5}, step=4)
    assert path.read_text() == "step,l0\n4,5.0\n"


def test_logging_after_the_end_goes_on_in_the_same_files(tmp_path):
    logger = logger_for(tmp_path)
    for step in (1, 2):
        logger.log_metrics({"topk-8/l0": step}, step)
        logger.finalize("success")
    assert points(tmp_path, "topk-8", "l0") == [(1, 1), (2, 2)]
    assert len(list((tmp_path / "logs" / "topk-8").glob("events*"))) == 1


def test_the_folder_may_be_told_later_and_again(tmp_path):
    logger = PerSAE(to=["csv"])
    assert logger.save_dir is logger.log_dir is None
    logger.set_saes(SAES)
    for run in ("a", "b"):
        logger.set_folder(tmp_path / run)
        logger.log_metrics({"topk-8/l0": 1}, step=1)
    assert rows(tmp_path / "a", "topk-8") == rows(tmp_path / "b", "topk-8")
    assert logger.log_dir == str(tmp_path / "b" / "logs")


def test_dataclasses_are_written_as_the_cli_writes_them(tmp_path):
    logger = PerSAE(tmp_path, to=["csv"])
    logger.set_saes({"a": Config(k=3)})
    config = yaml.safe_load((tmp_path / "logs" / "a" / "hparams.yaml").read_text())
    assert config == {"class_path": f"{__name__}.Config", "init_args": {"k": 3}}


@dataclass
class Config:
    k: int


def test_user_errors_say_the_fix(tmp_path):
    with pytest.raises(UserError, match="did you mean 'tensorboard'"):
        PerSAE(to=["csv", "tensorbord"])
    with pytest.raises(UserError, match="give it save_dir"):
        PerSAE(to=["csv"]).log_metrics({"a/b": 1}, step=0)
    with pytest.raises(UserError, match="rename it"):
        PerSAE(tmp_path).set_saes({"bank": {}})


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = logger_for(tmp_path)
    logger.log_metrics({"topk-8/l0": 1}, step=1)
    logger.resume(0)
    logger.finalize("success")
    assert list(tmp_path.iterdir()) == []
    assert logger.experiment["topk-8"] is not None  # Lightning's stand-in, as of its own loggers


def test_pickles_without_its_open_runs(tmp_path):
    logger = logger_for(tmp_path)
    pickle.loads(pickle.dumps(logger)).log_metrics({"topk-8/l0": 1}, step=1)
    assert len(rows(tmp_path, "topk-8")) == 1


def identity(logger: Logger) -> Logger:
    return logger


def test_built_from_yaml(tmp_path):
    init_args = {"save_dir": None, "to": ["csv"], "wandb": None}
    given = {"logger": {"class_path": "saelight.loggers.PerSAE", "init_args": init_args}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(given))
    logger = auto_cli(identity, args=["--config", str(tmp_path / "config.yaml")])
    logger.set_folder(tmp_path)
    logger.log_metrics({"a/l0": 1}, step=1)
    assert len(rows(tmp_path, "a")) == 1


class Tiny(L.LightningModule):
    """Logs as Lightning's users do."""

    def __init__(self, saes):
        super().__init__()
        self.save_hyperparameters()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch, batch_idx):
        self.log_dict({"topk-8/train/loss": self.weight * 1, "throughput/x": 2.0})
        return self.weight * batch.mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_with_a_plain_trainer(tmp_path):
    logger = PerSAE(tmp_path)
    trainer = L.Trainer(
        max_steps=4,
        log_every_n_steps=2,
        logger=logger,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Tiny(SAES), torch.utils.data.DataLoader(torch.ones(4, 3)))
    assert trainer.log_dir == str(tmp_path)
    assert [row["step"] for row in rows(tmp_path, "topk-8")] == ["1", "3"]
    assert len(rows(tmp_path, "bank")) == 2
    assert list((tmp_path / "checkpoints").glob("*.ckpt"))
    assert "init_args" in (tmp_path / "logs" / "topk-32" / "hparams.yaml").read_text()
