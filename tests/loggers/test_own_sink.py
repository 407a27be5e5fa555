"""A sink that a user writes, as of MLflow: a store of runs outside of the run folder."""

import json
from pathlib import Path

import pytest
import yaml
from jsonargparse import auto_cli
from lightning.pytorch.loggers import Logger

import saelight
from saelight.errors import UserError
from saelight.loggers import PerSAE, Sink, SinkRun
from tests.support.runs import data, trainer

SAES = {"topk": saelight.TopK(d_sae=20, k=4), "relu": saelight.ReLU(d_sae=20)}


class Store(Sink):
    """Keeps every run in a folder of one store, as `mlruns/` does."""

    takes_shared = True

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def open(self, folder, name, config):
        return StoreRun(Path(self.uri) / folder.name / name, config)


class StoreRun(SinkRun):
    def __init__(self, folder, config):
        self.folder, self.held = folder, []
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "params.json").write_text(json.dumps(config))
        (folder / "metrics.jsonl").touch()

    def log(self, metrics, step):
        self.held.append({"step": step, **metrics})

    def resume(self, step):
        kept = [row for row in rows(self.folder) if row["step"] <= step]
        (self.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))

    def flush(self):
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in self.held)
        self.held.clear()

    def finish(self, exit_code):
        super().finish(exit_code)
        (self.folder / "status").write_text("FAILED" if exit_code else "FINISHED")


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_fit_writes_to_it(tmp_path):
    store = Store(str(tmp_path / "mlruns"))
    t = trainer(tmp_path, logger=PerSAE(to=["csv", store]), log_every_n_steps=5)
    bank = saelight.SAEBank(dict(SAES), d_in=16)
    t.fit(bank, data())
    kept = tmp_path / "mlruns" / t.folder.name
    assert {path.name for path in kept.iterdir()} == SAES.keys()  # what a bank shares is in each
    for name in SAES:
        assert json.loads((kept / name / "params.json").read_text()) == bank.hparams["saes"][name]
        assert (kept / name / "status").read_text() == "FINISHED"
        trained = [row for row in rows(kept / name) if "train/fvu" in row]
        assert trained[-1]["step"] == t.global_step
        assert trained[-1]["tokens"] == bank.tokens_seen
        assert any("val/fvu" in row for row in rows(kept / name))
    assert "tokens" in (t.folder / "logs" / "bank" / "metrics.csv").read_text()
    assert t.logger.experiment["topk"].Store.folder == kept / "topk"
    assert t.logger.experiment["topk"].tensorboard is None


def test_resuming_forgets_there_too(tmp_path):
    logger = PerSAE(tmp_path, to=[Store(str(tmp_path / "mlruns"))])
    logger.set_saes({"a": {}})
    for step in (1, 2, 3):
        logger.log_metrics({"a/l0": step}, step)
    logger.save()
    logger.resume(2)
    logger.log_metrics({"a/l0": 30}, 3)
    logger.finalize("failed")
    assert rows(tmp_path / "mlruns" / tmp_path.name / "a") == [{"step": s, "l0": v} for s, v in ((1, 1), (2, 2), (3, 30))]
    assert (tmp_path / "mlruns" / tmp_path.name / "a" / "status").read_text() == "FAILED"


def identity(logger: Logger) -> Logger:
    return logger


def test_yaml_names_it_by_its_class_path(tmp_path):
    own = {"class_path": f"{__name__}.Store", "init_args": {"uri": str(tmp_path / "mlruns")}}
    given = {"logger": {"class_path": "saelight.loggers.PerSAE", "init_args": {"to": ["csv", own]}}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(given))
    logger = auto_cli(identity, args=["--config", str(tmp_path / "config.yaml")])
    logger.set_folder(tmp_path)
    logger.log_metrics({"a/l0": 1}, step=1)
    logger.finalize("success")
    assert rows(tmp_path / "mlruns" / tmp_path.name / "a") == [{"step": 1, "l0": 1.0}]


def test_what_is_no_sink_is_refused():
    with pytest.raises(UserError, match="it is no subclass"):
        PerSAE(to=["pathlib.Path"])
    with pytest.raises(UserError, match="No module named"):
        PerSAE(to=["nowhere.Sink"])
