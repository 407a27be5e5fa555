"""What a sweep predicts of a GPU's memory, against the live bytes of a step, counted without a GPU."""

import pytest

from benchmarks.gpu.live_bytes import PRECISIONS, row
from benchmarks.gpu.training import Size, configs

# As large as a GPU's work is, and with weights that outweigh a batch.
SIZES = (Size(), Size(d_in=512, d_sae=4096, batch=4096, k=32), Size(d_in=2304, d_sae=16384, batch=128, k=32))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", configs(64, 4))
def test_the_prediction_covers_what_is_live(name, precision):
    for size in SIZES[2:] if name == "matching_pursuit" else SIZES:
        counted, predicted = row(configs(size.d_sae, size.k)[name], size, precision)
        assert 0.98 < predicted / counted < 1.35, size
