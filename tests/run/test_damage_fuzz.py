"""Two hundred damaged checkpoints and SAE folders, seeded: each is refused in one line, or was not damaged after all."""

import contextlib
import json
import math
import os
import pickle
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from safetensors.torch import load_file, save_file

import saelight
from saelight.bank.checkpoint_file import ChecksummedIO
from tests.support.runs import data, trainer
from tests.support.variants import VARIANTS

SEED, EACH, STEPS, PATIENCE = 12, 100, 4, 60
SAES = {"topk": VARIANTS["topk"], "jump": VARIANTS["jump_relu"]}

pytestmark = [
    pytest.mark.slow,
    # Of what a run goes on from without harm
    pytest.mark.filterwarnings("ignore:this run was begun for"),
]


class Save(L.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 2:
            trainer.save_checkpoint("a.ckpt")


@pytest.fixture
def run(tmp_path):
    """A finished run's folder, and `a.ckpt` of its middle."""
    t = trainer(tmp_path, max_steps=STEPS, callbacks=[Save()])
    t.fit(saelight.SAEBank(dict(SAES), d_in=16), data())
    return t.folder


class Hang(BaseException):
    pass


@contextlib.contextmanager
def patience() -> Iterator[None]:
    def give_up(*_: Any) -> None:
        raise Hang

    old = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


# --- damage to bytes


def _flip(b: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 1, 3])):
        b[rng.randrange(len(b))] ^= 1 << rng.randrange(8)


def _cut(b: bytearray, rng: random.Random) -> None:
    del b[rng.randrange(len(b)) :]


def _blank(b: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(b))
    b[start : start + 512] = bytes(len(b[start : start + 512]))


def _lose(b: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(b))
    del b[start : start + rng.randint(1, 64)]


def _insert(b: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(b) + 1)
    b[start:start] = rng.randbytes(rng.randint(1, 64))


def _replace(b: bytearray, rng: random.Random) -> None:
    b[:] = rng.choice(
        [b"", b"a: 1\n", b"{}", rng.randbytes(300), pickle.dumps(print), b"[" * 50_000, b"PK\x03\x04" + bytes(90)]
    )


BYTES = [_flip, _flip, _flip, _cut, _blank, _lose, _insert, _replace]


def damage_bytes(path: Path, rng: random.Random) -> None:
    """Make another file of it."""
    whole = path.read_bytes()
    damaged = bytearray(whole)
    while damaged == whole:
        rng.choice(BYTES)(damaged, rng)
    path.write_bytes(damaged)


def damage_kind(path: Path, rng: random.Random) -> None:
    """Put something that is no file in its place."""
    path.unlink()
    kind = rng.choice(["folder", "pipe", "loop", "device", "nothing"])
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "nothing":
        path.symlink_to(path if kind == "loop" else "/dev/zero")


# --- damage to content: one part is missing, or of another type


def parts(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths of all parts of nested dicts and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield (*path, key)
        yield from parts(part, (*path, key))


WRONG = [None, True, "1", "", -1, 1.5, math.nan, math.inf, 10**30, [], {}, [[[]]], {"a": None}, "\x00\n", torch.zeros(2)]


def damage_part(content: Any, path: tuple, rng: random.Random, wrong: Sequence[Any] = WRONG) -> None:
    """Take the part at `path` away, or put a value of another type there."""
    for key in path[:-1]:
        content = content[key]
    before = content[path[-1]]
    if rng.random() < 0.3:
        del content[path[-1]]
    else:
        content[path[-1]] = rng.choice([value for value in wrong if type(value) is not type(before)])


def damage_checkpoint(path: Path, rng: random.Random) -> str:
    """Damage a checkpoint, and say how."""
    how = rng.choices(["bytes", "kind", "part"], [70, 5, 25])[0]
    if how == "bytes":
        damage_bytes(path, rng)
    elif how == "kind":
        damage_kind(path, rng)
    else:
        content = torch.load(path, weights_only=True)
        inside = ("state_dict", "saelight", "hyper_parameters", "optimizer_states")
        damage_part(content, rng.choice([p for p in parts(content) if len(p) == 1 or p[0] in inside]), rng)
        # With a checksum that holds.
        ChecksummedIO().save_checkpoint(content, path)
    return how


def damage_folder(folder: Path, rng: random.Random) -> str:
    """Damage an SAE's folder, and say how."""
    how = rng.choices(["bytes", "kind", "key", "unvouched key", "tensor"], [40, 5, 20, 25, 10])[0]
    config, weights = folder / "config.json", folder / "sae.safetensors"
    if how == "bytes":
        damage_bytes(rng.choice([config, weights]), rng)
    elif how == "kind":
        damage_kind(rng.choice([config, weights]), rng)
    elif how == "tensor":
        tensors = load_file(weights)
        name = rng.choice(list(tensors))
        tensors[name] = rng.choice(
            [
                tensors[name].to(torch.int32),
                tensors[name] * math.nan,
                tensors[name] / 0,
                tensors[name][..., None].contiguous(),
            ]
        )
        save_file(tensors, weights)
    else:
        content = json.loads(config.read_text())
        if how == "unvouched key":
            # Only what decides which SAE it is: nobody can tell that a note is not the one that was written.
            del content["sha256"]
            free = ("source", "training", "versions", "kernels", "commit", "name", "target_source")
            paths = [p for p in parts(content) if p[0] not in free or len(p) == 1]
        else:
            paths = list(parts(content))
        wrong = [value for value in WRONG if not isinstance(value, torch.Tensor)]
        damage_part(content, rng.choice(paths), rng, wrong)
        config.write_text(json.dumps(content))
    return how


# --- what comes of it


class Figures:
    """Counts of outcomes, by how was damaged and what was tried."""

    def __init__(self, what: str) -> None:
        self.what, self.counts = what, Counter[str]()
        self.failures: list[str] = []

    def add(self, use: str, came: str, where: str) -> None:
        kind = came if came in ("refused", "unharmed") else "failed"
        self.counts[f"{use} {kind}"] += 1
        if kind == "failed":
            self.failures.append(f"{where}, {use}: {came}")

    def show(self, n: int) -> None:
        tracebacks, hangs = (sum(word in line for line in self.failures) for word in ("traceback", "hang"))
        silently = sum("accepted" in line for line in self.failures)
        print(f"\n{n} damaged {self.what} (seed {SEED}): {dict(sorted(self.counts.items()))}; {tracebacks} tracebacks, "
              f"{hangs} hangs, {silently} silently accepted")  # fmt: skip


def outcome(use: Callable[[], bool]) -> str:
    """What comes of a use of something damaged, which says, if it was accepted, whether the result is right all the same."""
    try:
        with patience():
            right = use()
    except saelight.UserError as error:
        return "refused" if str(error).isprintable() and len(str(error)) < 1000 else f"more than a line: {error!r}"
    except Hang:
        return "hang"
    except Exception as error:
        return f"traceback: {error!r}"
    return "unharmed" if right else "silently accepted"


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].numpy().tobytes() == b[name].numpy().tobytes() for name in a)


def new_bank() -> saelight.SAEBank:
    return saelight.SAEBank(dict(SAES), d_in=16)


def test_damaged_checkpoints(run, capsys):
    rng, figures, root = random.Random(SEED), Figures("checkpoints"), run.parents[1]
    whole, path = Path("a.ckpt").read_bytes(), run / "checkpoints" / "last.ckpt"
    middle, end = (torch.load(p, weights_only=True)["state_dict"] for p in ("a.ckpt", path))

    def fit() -> bool:
        bank = new_bank()
        trainer(root, max_steps=STEPS).fit(bank, data(), ckpt_path=path)
        return same(bank.state_dict(), end)

    def validate() -> bool:
        bank = new_bank()
        trainer(root).validate(bank, datamodule=data(), ckpt_path=path)
        return same(bank.state_dict(), middle)

    def load() -> bool:
        return same(saelight.SAEBank.load_from_checkpoint(path).state_dict(), middle)

    for i in range(EACH):
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        path.write_bytes(whole)
        how = damage_checkpoint(path, rng)
        # (a fit that succeeds writes another one)
        for use in (load, validate, fit):
            figures.add(use.__name__, outcome(use), f"{i} ({how})")
    with capsys.disabled():
        figures.show(EACH)
    assert figures.failures == []


def test_damaged_sae_folders(run, capsys):
    rng, figures, root = random.Random(SEED), Figures("SAE folders"), run.parents[1]
    folder, x = Path("damaged"), torch.randn(5, 16)
    for i in range(EACH):
        name = rng.choice(list(SAES))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(run / "saes" / name, folder)
        how, right = damage_folder(folder, rng), saelight.load(run / "saes" / name)(x)

        def load(right: torch.Tensor = right) -> bool:
            return torch.equal(saelight.load(folder)(x), right)

        def fit(name: str = name, load: Callable[[], bool] = load) -> bool:
            start = replace(SAES[name], init_from=str(folder))
            trainer(root, max_steps=1).fit(saelight.SAEBank({"a": start}, d_in=16), data())
            return load()

        for use in (load, fit):
            figures.add(use.__name__, outcome(use), f"{i} ({how})")
    with capsys.disabled():
        figures.show(EACH)
    assert figures.failures == []
