"""A tiny model and a text for it, and data modules straight from both."""

import random
from pathlib import Path
from typing import Any

import saelight

SETTINGS: dict[str, Any] = {
    "hooks": ["layers.1"],
    "rows": 1600,
    "val_rows": 150,
    "buffer": 512,
    "first_rows": 700,
    "batch_size": 100,
    "context": 64,
    "model_batch_size": 1,
    "device": "cpu",
}
"""An epoch has four buffers, of 512 rows, and two groups of windows, of some 850."""


def write_text(folder: Path, documents: int = 90) -> str:
    """Random letters, in files; their pattern."""
    folder.mkdir()
    rng = random.Random(0)
    for number in range(documents):
        letters = rng.choices("abcdefghij klmno.", k=rng.randint(40, 64))
        (folder / f"{number:03}.txt").write_text("".join(letters))
    return f"{folder}/*.txt"


def from_model(model: str, files: str, **settings: Any) -> saelight.ModelDataModule:
    """A data module straight from a model."""
    return saelight.ModelDataModule(model=model, files=[files], **SETTINGS | settings)


def batches(data: Any, n: int) -> list:
    """The first n batches, over epochs."""
    stream, seen = data.train_dataloader(), []
    while len(seen) < n:
        for batch in stream:
            seen.append(batch)
            if len(seen) == n:
                break
    return seen
