"""PerSAE with W&B, offline: what each run's own file says."""

import json
import struct
import sys
import time

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from saelight.errors import UserError
from saelight.loggers import PerSAE

SAES = {f"topk-{k}": {"class_path": "saelight.saes.TopK", "init_args": {"k": k}} for k in range(9)}


def records(data, block=2**15):
    """The records of an offline run's file: LevelDB's log format after 7 bytes of greeting."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if block - at % block < 7:  # too little for another header: the block is padded
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(record)
            record = b""


def read(path, patience=20.0):
    """What an offline run's file holds once it is whole, for W&B's service may write on after `finish` returns."""
    deadline = time.monotonic() + patience
    while (run := parse(path))["exit"] is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return run


def parse(path):
    """Name, project, group, config, history rows and exit code of an offline run."""
    run = {"config": {}, "history": [], "exit": None}
    for record in records(path.read_bytes()):
        if record.HasField("run"):
            run |= {"name": record.run.display_name, "project": record.run.project, "group": record.run.run_group}
            run["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif record.HasField("history"):
            items = record.history.item
            run["history"].append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
        elif record.HasField("exit"):
            run["exit"] = record.exit.exit_code
    return run


def runs(folder):
    """The offline runs of a run folder, by W&B id."""
    return {path.stem.removeprefix("run-"): read(path) for path in folder.glob("wandb/offline-run-*/*.wandb")}


def test_nine_runs_in_one_group_each_with_its_own_config(tmp_path):
    folder = tmp_path / "minilm"
    logger = PerSAE(folder, to=["csv"], wandb={"project": "try", "offline": True})
    logger.set_saes(SAES)
    for step in (10, 20):
        values = {f"{name}/train/l0": i for i, name in enumerate(SAES)}
        logger.log_metrics({**values, "tokens": 64 * step, "epoch": 0}, step)
    logger.finalize("success")
    assert wandb.run is None  # nothing global is left behind
    ids = json.loads((folder / "logs" / "runs.json").read_text())
    found = runs(folder)
    assert sorted(ids) == sorted(SAES)
    assert sorted(found) == sorted(ids.values())
    for i, name in enumerate(SAES):
        run = found[ids[name]]
        assert (run["name"], run["project"], run["group"], run["exit"]) == (name, "try", "minilm", 0)
        assert {key: run["config"][key] for key in SAES[name]} == SAES[name]
        logged = [{key: row[key] for key in row if key[0] != "_"} for row in run["history"]]
        assert logged == [{"train/l0": i, "tokens": 64 * s, "trainer/global_step": s} for s in (10, 20)]
    assert (folder / "logs" / "bank" / "metrics.csv").exists()
    assert (folder / "logs" / "topk-0" / "metrics.csv").exists()


def test_going_on_keeps_the_ids_and_a_failure_is_told(tmp_path):
    for status in ("success", "failed"):
        logger = PerSAE(tmp_path, to=[], wandb={"offline": True, "group": "mine"})
        logger.set_saes({"a": {}})
        logger.log_metrics({"a/l0": 1}, step=1)
        logger.finalize(status)
    paths = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len({path.stem for path in paths}) == 1
    assert sorted(read(path)["exit"] for path in paths) == [0, 1]
    assert {read(path)["group"] for path in paths} == {"mine"}


def test_a_missing_wandb_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'saelight\[wandb\]'"):
        PerSAE(to=["wandb"])


def test_settings_are_checked_at_once():
    with pytest.raises(UserError, match="did you mean 'project'"):
        PerSAE(wandb={"projct": "x"})
    with pytest.raises(UserError, match="each SAE's own"):
        PerSAE(wandb={"name": "x"})


def refuse(**kwargs):
    raise wandb.errors.UsageError("No API key configured.\nUse `wandb login` to log in.")


def test_a_refusal_is_one_line(tmp_path, monkeypatch):
    logger = PerSAE(tmp_path, wandb={"settings": {"nonsense": 1}})
    with pytest.raises(UserError, match=r"did not start run 'a': .*nonsense.*offline: true") as strange:
        logger.set_saes({"a": {}})
    logger = PerSAE(tmp_path, to=["wandb"])
    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(UserError, match=r"did not start run 'a': No API key configured. Use .*offline: true") as refused:
        logger.set_saes({"a": {}})
    assert "\n" not in str(strange.value) + str(refused.value)
