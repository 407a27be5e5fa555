"""What a sweep predicts of a GPU's memory, against the live bytes of a step, counted without a GPU."""

import pytest
import torch

from benchmarks.gpu.counting import Counting
from benchmarks.gpu.live_bytes import PRECISIONS, Live, row
from benchmarks.gpu.training import Size, configs
from saelight.bank.optimizer import adamw
from saelight.saes import TopK
from saelight.schedules import Horizon

# As large as a GPU's work is, and with weights that outweigh a batch.
SIZES = (Size(d_in=384, d_sae=65536, batch=4096, k=64), Size(d_in=2304, d_sae=16384, batch=128, k=32))
QUICK = ("topk", "relu", "jump_relu", "gated")
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in configs(64, 4)]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_prediction_covers_what_is_live(name, precision):
    for size in SIZES[1:] if name == "matching_pursuit" else SIZES:
        counted, predicted = row(configs(size.d_sae, size.k)[name], size, precision)
        assert 0.95 < predicted / counted < 1.5, size


def test_a_step_of_the_optimizer_holds_one_saes_temporaries():
    def temporaries(n: int) -> int:
        with torch.device("meta"):
            saes = {f"sae-{i}": TopK(d_sae=256, k=4).build(64) for i in range(n)}
            stepper = adamw(saes.items(), Horizon(10, 10, 32), torch.empty(64, 64))["optimizer"]
            for sae in saes.values():
                sae.W_enc.grad, sae.W_dec.grad = torch.empty_like(sae.W_enc), torch.empty_like(sae.W_dec)
        with Live() as live, Counting():
            stepper.step()
        return live.peak - live.now

    assert temporaries(5) <= 1.1 * temporaries(1)
