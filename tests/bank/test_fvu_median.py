"""The median token's FVU in validations: about the mean of the sample that training began with, which checkpoints keep."""

import pytest
import torch

import saelight
from saelight.data.norms import ordinary as ordinary_rows
from tests.data.folders import SINK_EVERY, with_sinks
from tests.support.runs import data, trainer


def test_it_is_about_the_starting_samples_mean_and_survives_the_checkpoint(tmp_path):
    d, t = data(normalise="rms"), trainer(tmp_path, max_steps=5, name="a")
    bank = saelight.SAEBank({"topk": saelight.TopK(expansion=2, k=4)}, d_in=d.d_in)
    t.fit(bank, d)
    mean_D = d.init_sample().mean(0)
    assert mean_D.norm() > 1e-3
    x_ND = torch.cat([d.on_after_batch_transfer(batch, 0) for batch in d.val_dataloader()])
    with torch.no_grad():
        ratio_N = (x_ND - bank["topk"](x_ND)).square().sum(1) / (x_ND - mean_D).square().sum(1)
    found = bank.last_metrics["topk"]["fvu_median"]
    assert found == pytest.approx(ratio_N.median().item(), rel=10**0.001 - 1)
    again = trainer(tmp_path, max_steps=5, name="a")
    other = saelight.SAEBank({"topk": saelight.TopK(expansion=2, k=4)}, d_in=d.d_in)
    again.validate(other, datamodule=d, ckpt_path="last")
    assert other.last_metrics["topk"]["fvu_median"] == found


def test_sinks_do_not_draw_the_mean():
    x = with_sinks(2000)
    x[::SINK_EVERY] += 1000
    ordinary = torch.arange(2000) % SINK_EVERY != 0
    assert torch.equal(ordinary_rows(x), x[ordinary])
    zeros = torch.zeros(5, 3)
    assert torch.equal(ordinary_rows(zeros), zeros)
