"""What a training step asks of a GPU has upper bounds, which only go down: counted on meta tensors, without one."""

import pytest
import torch

from benchmarks.gpu import budget
from benchmarks.gpu.budget import count, without_auxk
from benchmarks.gpu.counting import Counting
from benchmarks.gpu.training import Size, configs

SIZE = Size(768, 16384, 4096, 64)
# Launches, and GB moved, of a step of one SAE in bf16 between two logged steps, AuxK left out. docs/performance.md has them
# by stage: `python -m benchmarks.gpu.budget`.
BOUNDS = {
    "topk": (74, 3.27),
    "batch_topk": (88, 3.27),
    "matryoshka": (110, 3.86),
    "relu": (78, 3.56),
    "jump_relu": (95, 5.27),
    "gated": (108, 6.99),
    "abs_topk": (74, 3.54),
    "hard_concrete": (98, 11.51),
    "gated_hard_concrete": (128, 13.64),
}
WITH_ADAMW = {"topk": (62, 3.17), "relu": (66, 3.45)}
PURSUIT = (223, 9.4)  # of 4 latents: each is a pass over all
# What AuxK adds with 512 dead latents.
AUXK = {"topk": (74, 1.26), "jump_relu": (74, 1.26)}


def assert_within(counted, launches, gigabytes):
    total = counted.total
    assert total.launches <= launches
    assert total.bytes <= gigabytes * 1e9
    assert total.reads == 0, counted.reads


@pytest.mark.parametrize("name", BOUNDS)
def test_a_step_stays_within_its_bounds(name):
    assert_within(count(without_auxk(configs(SIZE.d_sae, SIZE.k)[name]), SIZE), *BOUNDS[name])


@pytest.mark.parametrize("name", WITH_ADAMW)
def test_a_step_with_adamw_stays_within_its_bounds(name):
    config = configs(SIZE.d_sae, SIZE.k, optimizer="adamw")[name]
    assert_within(count(without_auxk(config), SIZE), *WITH_ADAMW[name])


def test_a_step_of_matching_pursuit_stays_within_its_bounds():
    size = SIZE._replace(k=4)
    assert_within(count(configs(size.d_sae, size.k)["matching_pursuit"], size), *PURSUIT)


@pytest.mark.parametrize("name", AUXK)
def test_auxk_adds_no_more_than_its_bounds(name):
    config, (launches, gigabytes) = configs(SIZE.d_sae, SIZE.k)[name], AUXK[name]
    without = count(without_auxk(config), SIZE).total
    counted = count(config, SIZE, dead=512)
    assert_within(counted, without.launches + launches, without.bytes / 1e9 + gigabytes)


def test_every_variant_has_bounds():
    assert BOUNDS.keys() | {"matching_pursuit"} == configs(SIZE.d_sae, SIZE.k).keys()


def test_launches_bytes_and_reads_are_counted():
    with Counting(found=3) as counting:
        x = torch.zeros(10, 4, device="meta")  # writes 160
        y = (x.T[1:] + 1).sum(1)  # reads 120, writes 120; reads 120, writes 12; views are free
        y.add_(y)  # reads 12 twice, writes 12
        x.index_select(0, torch.zeros(2, dtype=torch.long, device="meta"))  # writes 16; reads 16 and 32, writes 32
        found = y.nonzero()  # one read of the device
        x.fill_(float(y[0]))  # another one; writes 160
    assert found.shape == (3, 1)
    total = counting.counted.total
    assert (total.launches, total.reads) == (7 + 1, 2)
    of = {name: one.bytes for name, one in counting.counted.operators.items()}
    assert of["zeros"] == 160 + 16
    assert (of["add"], of["sum"], of["add_"], of["index_select"], of["fill_"]) == (240, 132, 36, 80, 160)


def test_the_command_prints_a_table(monkeypatch, capsys):
    size = ["--d_in", "16", "--d_sae", "64", "--batch", "32", "--k", "4"]
    monkeypatch.setattr("sys.argv", ["budget", *size, "--variant", "topk", "--dead", "8", "--precision", "fp32"])
    budget.main()
    out = capsys.readouterr().out
    assert out.startswith("| variant | launches | GB | reads | forward | backward |")
    assert "| topk | " in out
    assert "reads  " not in out
