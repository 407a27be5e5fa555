"""Golden numbers of a whole run: a change not meant to alter numbers leaves them be.

python -m tests.test_golden        prints them anew, for a change that is meant to
"""

import json
from pathlib import Path

import lightning as L
import pytest

import saelight
from tests.support.variants import VARIANTS

GOLDEN = Path(__file__).with_name("golden.json")
# Whether a token falls into JumpReLU's narrow window hangs on rounding: other vector instructions move its numbers by 5 %.
STEADY = {name: config for name, config in VARIANTS.items() if not name.startswith("jump_relu")}


def numbers() -> dict[str, dict[str, float]]:
    """Final metrics of the steady variants after 200 steps on synthetic data."""
    data = saelight.SyntheticDataModule(d_in=16, n_features=32, mean_l0=3, rows=20_000, val_rows=1000, batch_size=100)
    bank = saelight.SAEBank(STEADY, d_in=16)
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    L.Trainer(max_epochs=1, accelerator="cpu", **off).fit(bank, datamodule=data)
    keys = ("l0", "fvu", "mmcs", "cosine")
    return {name: {key: round(values[key], 6) for key in keys} for name, values in bank.last_metrics.items()}


def test_a_whole_run_gives_the_golden_numbers():
    got, golden = numbers(), json.loads(GOLDEN.read_text())
    assert got.keys() == golden.keys()
    for name in golden:
        # Processors round differently; 200 steps carry that to the fourth digit at most.
        assert got[name] == pytest.approx(golden[name], rel=2e-3), name


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(numbers(), indent=1) + "\n")
    print(GOLDEN.read_text())
