"""Checkpoints from elsewhere: a byte that changed, or a part that is no bank's, is one line before anything is trained."""

import io
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint

import saelight
from saelight.bank.checkpoint_file import ChecksummedIO, opened
from tests.support.banks import bank as plain_bank
from tests.support.banks import fit as fit_plainly
from tests.support.commands import CONFIG, refused
from tests.support.runs import data, trainer
from tests.support.variants import VARIANTS

SAES = {"topk": VARIANTS["topk"], "jump": VARIANTS["jump_relu"]}
STEPS = 4


def bank() -> saelight.SAEBank:
    return saelight.SAEBank(dict(SAES), d_in=16)


class Save(L.Callback):
    """Writes a checkpoint after the second step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 2:
            trainer.save_checkpoint(self.path)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The checkpoint of a run's middle."""
    path = tmp_path_factory.mktemp("good") / "a.ckpt"
    trainer(path.parent, max_steps=STEPS, callbacks=[Save(path)]).fit(bank(), data())
    return path


@pytest.fixture
def copy(good, tmp_path):
    """A run folder of its own with that checkpoint."""
    path = tmp_path / "runs" / "run" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    return shutil.copy(good, path)


def line(read: Callable[[], Any]) -> str:
    """The one line of what is refused."""
    with pytest.raises(saelight.UserError) as refusal:
        read()
    message = str(refusal.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


def fit(path: Path) -> None:
    trainer(Path(), max_steps=STEPS).fit(bank(), data(), ckpt_path=str(path))


def test_every_single_byte_counts(tmp_path):
    path = tmp_path / "a.ckpt"
    ChecksummedIO().save_checkpoint({"a": torch.arange(3.0), "b": [1, None, "c"]}, path)
    whole, loaded = path.read_bytes(), ChecksummedIO().load_checkpoint(path)
    assert torch.equal(loaded["a"], torch.arange(3.0))
    for i in range(len(whole)):
        changed = bytearray(whole)
        changed[i] ^= 1 << i % 8
        with pytest.raises(saelight.UserError), opened(io.BytesIO(changed)):
            pass


def test_torch_itself_reads_it(good):
    assert torch.load(good, weights_only=True)["global_step"] == 2


def test_whatever_trainer_writes_it_there_is_a_checksum(tmp_path, activations):
    path = tmp_path / "a.ckpt"
    fit_plainly(plain_bank({"a": VARIANTS["relu"]}), activations, max_steps=1).save_checkpoint(path)
    keep = ModelCheckpoint(dirpath=tmp_path / "own", filename="b")
    trainer(tmp_path, callbacks=[keep], max_steps=1).fit(bank(), data())
    for written in (path, tmp_path / "own" / "b.ckpt"):
        with opened(written) as file:
            assert file.tell() == 0
    assert not list(tmp_path.rglob("*partial*"))


class Harm:
    def __reduce__(self):
        return Path("sprung").touch, ()


def resealed(path: Path, content: Any) -> None:
    ChecksummedIO().save_checkpoint(content, path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda p: os.truncate(p, p.stat().st_size // 2), "was cut short"),
        (lambda p: os.truncate(p, p.stat().st_size - 1), "was cut short"),
        (lambda p: os.truncate(p, 20), "was cut short"),
        (lambda p: os.truncate(p, 0), "is no checkpoint: give a .ckpt file"),
        (lambda p: p.write_text("a: 1"), "is no checkpoint: give a .ckpt file"),
        (lambda p: p.write_bytes(pickle.dumps(Harm())), "is no checkpoint: give a .ckpt file"),
        (lambda p: torch.save(torch.load(p, weights_only=True), p), "no checksum is at its end"),
        (lambda p: torch.save(Harm(), p), "no checksum is at its end"),
        (lambda p: p.write_bytes(p.read_bytes() + b"\n"), "no checksum is at its end"),
        (lambda p: p.write_bytes(p.read_bytes()[:500] + b"x" + p.read_bytes()[501:]), "is damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:-50] + b"0" * 49 + b"\n"), "is damaged"),
        (lambda p: resealed(p, Harm()), r"holds \S+, which only code of its own can read"),
        (lambda p: resealed(p, {"state_dict": Harm()}), "which only code of its own can read"),
        (lambda p: resealed(p, [1]), "is no checkpoint of a bank|does not fit"),
        (lambda p: (p.unlink(), p.mkdir()), "no checkpoint at"),
        (lambda p: (p.unlink(), os.mkfifo(p)), "no checkpoint at"),
        (lambda p: (p.unlink(), p.symlink_to(p)), "no checkpoint at"),
        (lambda p: (p.unlink(), p.symlink_to("/dev/zero")), "no checkpoint at"),
        (lambda p: p.unlink(), "no checkpoint at"),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_refused(damage, says, copy):
    damage(copy)
    for read in (fit, saelight.SAEBank.load_from_checkpoint):
        assert re.search(says, line(lambda: read(copy)))  # noqa: B023
    assert not Path("sprung").exists()


def without(key: str) -> Callable[[dict], None]:
    return lambda c: c.pop(key)


def changed(value: Any, *path: Any) -> Callable[[dict], None]:
    def change(c: Any) -> None:
        for key in path[:-1]:
            c = c[key]
        c[path[-1]] = value

    return change


WHOLE = ("epoch", "global_step", "pytorch-lightning_version", "state_dict", "saelight", "hyper_parameters")
TRAINING = ("loops", "callbacks", "optimizer_states", "lr_schedulers", "SyntheticDataModule")


@pytest.mark.parametrize(
    "change",
    [without(key) for key in (*WHOLE, *TRAINING[:1], *TRAINING[2:4])]
    + [changed(wrong, key) for key in (*WHOLE, *TRAINING) for wrong in (None, "x")]
    + [changed({"a": 1}, key) for key in (*WHOLE, "loops", "optimizer_states", "lr_schedulers")]
    + [
        changed(torch.zeros(3), "state_dict", "saes.0.W_enc"),
        changed(torch.zeros(16, 40, dtype=torch.int32), "state_dict", "saes.0.W_enc"),
        changed(torch.zeros(3), "state_dict", "more"),
        lambda c: c["state_dict"].pop("saes.0.W_enc"),
        changed(None, "saelight", "normalisation"),
        lambda c: c["saelight"].pop("horizon"),
        changed([1], "saelight", "horizon"),
        changed("x", "saelight", "position", "batches"),
        changed("x", "saelight", "position", "validation_due"),
        changed([1, "x", 1], "saelight", "position", "length"),
        changed({}, "loops", "fit_loop"),
        changed(torch.zeros(3), "optimizer_states", 0, "state", 0, "exp_avg"),
        changed(torch.zeros(3), "optimizer_states", 0, "state", 0, "exp_avg_sq"),
        changed("x", "optimizer_states", 0, "state", 0, "steps"),
        lambda c: c["optimizer_states"][0]["state"][0].pop("exp_avg"),
        lambda c: c["optimizer_states"][0]["param_groups"].pop(),
        changed(7, "optimizer_states", 0, "param_groups", 0, "width_dim"),
        changed([], "optimizer_states"),
        changed("x", "lr_schedulers", 0, "last_epoch"),
        changed("x", "loops", "fit_loop"),
        changed("not a version", "pytorch-lightning_version"),
    ],
)
def test_a_part_that_is_no_banks_is_refused(change, copy):
    content = torch.load(copy, weights_only=True)
    change(content)
    resealed(copy, content)
    assert re.search("the checkpoint|does not fit what is to be restored", line(lambda: fit(copy)))


@pytest.mark.parametrize("method", ["fit", "validate", "test", "predict"])
def test_no_method_goes_on_from_another_file(method, tmp_path):
    path = Path("some.yaml")
    path.write_text("a: 1")
    run = getattr(trainer(tmp_path), method)
    assert line(lambda: run(bank(), datamodule=data(), ckpt_path=path)).startswith(
        "some.yaml is no checkpoint: give a .ckpt"
    )
    assert [path.name for path in Path().iterdir()] == ["some.yaml"]


def test_nor_does_a_command(capsys):
    Path("cfg.yaml").write_text(yaml.safe_dump(CONFIG))
    said = refused(capsys, "fit", "--config", "cfg.yaml", "--ckpt_path", "cfg.yaml")
    assert "cfg.yaml is no checkpoint: give a .ckpt file that a run has written" in said
