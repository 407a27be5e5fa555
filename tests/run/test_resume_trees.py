"""From every checkpoint, and from every checkpoint of what was resumed from one, training is the unbroken run's."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

import saelight
from saelight.callbacks.validations import in_training
from tests.support.checkpoints import assert_same
from tests.support.runs import data, trainer

SAES = {
    "topk": saelight.TopK(expansion=2, k=4, lr=1e-3, dead_after=300),
    "jump": saelight.JumpReLU(expansion=2, target_l0=4, lr=1e-3),
    "batch": saelight.BatchTopK(expansion=3, k=3, lr=3e-3),
}
ROWS = {"rows": 720, "val_rows": 100, "batch_size": 50}  # 14 batches and 20 rows over
SETTINGS: dict[str, dict[str, Any]] = {
    "a quarter of 14 batches": {"max_epochs": 2, "val_check_interval": 0.25},
    "no validation": {"max_epochs": 2, "limit_val_batches": 0},
    "validation every third epoch": {"max_epochs": 3, "check_val_every_n_epoch": 3},
    "accumulation, 0.4 of an epoch": {"max_epochs": 2, "accumulate_grad_batches": 3, "val_check_interval": 0.4},
    "accumulation beyond the epoch": {"max_epochs": 5, "accumulate_grad_batches": 32},
    "max_steps": {"max_steps": 19, "val_check_interval": 0.5},
    "max_steps, accumulation": {"max_steps": 9, "accumulate_grad_batches": 4, "val_check_interval": 1.0},
    "max_tokens": {"max_tokens": 1130, "val_check_interval": 0.25},
    "max_tokens, accumulation": {"max_tokens": 1130, "accumulate_grad_batches": 4, "val_check_interval": 0.3},
    "short epochs": {"max_epochs": 4, "limit_train_batches": 5, "val_check_interval": 0.4},
    "short epochs, accumulation": {"max_epochs": 4, "limit_train_batches": 7, "accumulate_grad_batches": 2},
    "validation by batches over epochs": {"max_epochs": 2, "val_check_interval": 5, "check_val_every_n_epoch": None},
    "early stopping": {"max_epochs": 3, "val_check_interval": 0.25, "stops": "early"},
    "halving": {"max_epochs": 2, "val_check_interval": 0.25, "stops": "halving"},
    "early stopping, accumulation": {"max_steps": 12, "accumulate_grad_batches": 3, "stops": "early"},
}


class SaveEverywhere(L.Callback):
    """A checkpoint of every step, and of every validation in training."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.step = folder, 0

    def on_train_start(self, trainer, bank):
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer, bank, *_):
        if trainer.global_step > self.step:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step:03}-step.ckpt")
            self.step = trainer.global_step

    def on_validation_end(self, trainer, bank):
        # Between the batches of an accumulated step no checkpoint can be gone on from.
        if not in_training(trainer) or bank.position.length.steps(bank.position.batches) is None:
            return
        trainer.save_checkpoint(self.folder / f"{trainer.global_step:03}-validated.ckpt")


ENDERS = {"early": lambda: saelight.StopEarly(patience=1), "halving": lambda: saelight.Halving(rungs=[0.2, 0.6], keep=0.5)}


def run(folder: Path, settings: dict[str, Any], ckpt_path: Path | None = None) -> Path:
    """One fit, in a folder of its own or with another's checkpoint and logs; the folder."""
    settings = {"max_epochs": -1} | settings
    ender, max_tokens = settings.pop("stops", None), settings.pop("max_tokens", None)
    callbacks = [ENDERS[ender]()] if ender else []
    t = trainer(folder, callbacks=[*callbacks, SaveEverywhere(folder)], folder=str(folder / "run"), **settings)
    d = data(**ROWS)
    t.fit(saelight.SAEBank(dict(SAES), d_in=d.d_in, max_tokens=max_tokens), d, ckpt_path=ckpt_path and str(ckpt_path))
    return folder


def resumed(parent: Path, checkpoint: str, folder: Path, settings: dict[str, Any]) -> Path:
    """Go on from one of the checkpoints, as after a crash there."""
    place = folder / "run" / "checkpoints"
    place.mkdir(parents=True)
    (place / "last.ckpt").write_bytes((parent / checkpoint).read_bytes())
    for log in (parent / "run").glob("logs/*/metrics.csv"):
        copy = folder / log.relative_to(parent)
        copy.parent.mkdir(parents=True)
        copy.write_bytes(log.read_bytes())
    return run(folder, settings, place / "last.ckpt")


def state(path: Path) -> dict[str, Any]:
    """All of a checkpoint but what is of the clock."""
    checkpoint = torch.load(path, weights_only=True)
    for name, of_callback in checkpoint["callbacks"].items():
        if "WriteProgress" in name:
            del of_callback["seconds"], of_callback["ended"]
    return checkpoint


def rows(folder: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in folder.glob("run/logs/*/metrics.csv")}


def results(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "run" / "results.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "folder")} for line in lines]


def assert_as(tree: Path, folder: Path, first: str) -> None:
    """What was resumed from the checkpoint `first` left what the unbroken run did."""
    later = [path.name for path in sorted(tree.glob("*.ckpt")) if path.name > first]
    assert [path.name for path in sorted(folder.glob("*.ckpt")) if path.name > first] == later
    for name in [*later, "run/checkpoints/last.ckpt"]:
        assert_same(state(folder / name), state(tree / name), name)
    assert rows(folder) == rows(tree)
    assert results(folder) == results(tree)


def starts(folder: Path) -> list[str]:
    """The checkpoints of a run that another one may go on from."""
    return [path.name for path in sorted(folder.glob("*.ckpt"))]


def branches(tree: Path, settings: dict[str, Any], tmp_path: Path, draw: random.Random, count: int) -> Iterator[Path]:
    """Resumes from drawn checkpoints, every second one from a resumed run's, three deep at most."""
    parents = [(tree, 0)]
    for i in range(count):
        parent, depth = draw.choice(parents) if i % 2 else (tree, 0)
        names = starts(parent)
        first = draw.choice(names)
        folder = resumed(parent, first, tmp_path / f"{i}-from-{parent.name}-{first}", settings)
        assert_as(tree, folder, first)
        if depth < 2 and starts(folder):
            parents.append((folder, depth + 1))
        yield folder


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_resumed_again_is_the_unbroken_run(name, tmp_path):
    settings = SETTINGS[name]
    tree = run(tmp_path / "tree", settings)
    # The last of an epoch first: there Lightning's account goes wrong at the second resume.
    names = starts(tree)
    first = names[len(names) // 2 - 1]
    once = resumed(tree, first, tmp_path / "once", settings)
    assert_as(tree, once, first)
    if later := starts(once):
        second = later[len(later) // 2]
        assert_as(tree, resumed(once, second, tmp_path / "twice", settings), second)
    # All is trained on, and the last validation perhaps to come.
    last = [name for name in starts(tree) if name.endswith("step.ckpt")][-1]
    assert_as(tree, resumed(tree, last, tmp_path / "last", settings), last)


@pytest.mark.slow
def test_resume_trees(tmp_path, capsys):
    """300 resumes, up to three deep."""
    draw, done = random.Random(0), 0
    for name, settings in SETTINGS.items():
        tree = run(tmp_path / name / "tree", settings)
        done += len(list(branches(tree, settings, tmp_path / name, draw, 20)))
    with capsys.disabled():
        print(f"\n{done} resumes of {len(SETTINGS)} runs: each the unbroken run bit for bit")
    assert done == 300
