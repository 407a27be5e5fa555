"""What a sweep predicts of a GPU's memory, against the live bytes of a step, counted without a GPU."""

import pytest

from benchmarks.gpu.live_bytes import PRECISIONS, row
from benchmarks.gpu.training import Size, configs

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
