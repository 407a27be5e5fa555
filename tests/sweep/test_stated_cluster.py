"""What a dry run says of machines that are not here is arithmetic on their stated figures."""

import re

import pytest

from saelight.errors import UserError
from saelight.sweep.execute.stated_cluster import parse_cluster
from tests.support.commands import changed, refused, saelight_
from tests.support.sweeps import BASE, write

DATA = {"d_in": 128, "rows": 40_960, "val_rows": 100, "batch_size": 512}
SWEEP = {"name": "some", "base": "base.yaml", "sae": {"class_path": "TopK", "d_sae": 4096, "k": 4}}
SWEEP |= {"parameters": {"sae.lr": {"values": [1e-4, 2e-4, 3e-4, 4e-4]}}}


def test_hours_bytes_and_requests(capsys):
    file = write(SWEEP, changed(BASE, trainer__max_epochs=2, data__init_args=DATA))
    figures = "gpus=2,tflops=0.0001,memory_gb=80,gb_per_s=0.001"
    assert saelight_("sweep", "run", file, "--dry-run", "--cluster", figures) == 0
    said = capsys.readouterr().out
    # Two groups of two SAEs, 128 · 4096 weights twice and biases, see 2 · 40,960 tokens of 128 float32.
    tokens, weights = 2 * 40_960, 2 * (2 * 128 * 4096 + 4096 + 128)
    training = round(6 * tokens * weights / 1e8)
    clock = f"{training // 3600}:{training // 60 % 60:02d}:{training % 60:02d}"
    assert re.search(rf"^2 +2 .* 41\.9 MB +160 +{clock} +0:42$", said, re.MULTILINE)
    assert re.search(rf"4 SAEs in 2 groups: {clock}; 83\.9 MB read in 320 requests; disk ", said)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("gpus=2,tflop=1", "has no 'tflop'; did you mean 'tflops'?; write --cluster gpus=64,"),
        ("gpus=2", "lacks tflops, memory_gb, gb_per_s; write"),
        ("gpus=2.5", "gpus is a number above 0, not '2.5'"),
        ("gpus=0", "gpus is a number above 0, not '0'"),
        ("tflops=inf", "tflops is a number above 0, not 'inf'"),
        ("tflops=much", "tflops is a number above 0, not 'much'"),
        ("", "has no ''"),
    ],
)
def test_bad_figures_are_one_line(text, line):
    with pytest.raises(UserError, match=re.escape(line)):
        parse_cluster(text)


def test_it_goes_with_a_dry_run(capsys):
    file = write(SWEEP, changed(BASE, data__init_args=DATA))
    figures = "gpus=2,tflops=1,memory_gb=80,gb_per_s=1"
    assert "--cluster goes with --dry-run: add that" in refused(capsys, "sweep", "run", file, "--cluster", figures)
    small = "gpus=2,tflops=1,memory_gb=1,gb_per_s=1"
    assert saelight_("sweep", "run", file, "--dry-run", "--cluster", small) == 0
    assert "too large: 4 points, as " in capsys.readouterr().out
