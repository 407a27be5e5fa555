"""Sweeps from Python, in this process: the same SAEs as by files, and no files."""

from pathlib import Path

import pytest
import torch

import saelight
from tests.support.commands import saelight_, write
from tests.support.sweeps import BASE

POINTS = [
    {"sae": {"class_path": "TopK", "k": 2, "expansion": 2}},
    {"sae.class_path": "ReLU", "sae.lr": 3e-3, "data.batch_size": 50, "name": "mine"},
    {"sae": {"class_path": "TopK", "k": 4, "expansion": 2}},
    {"sae": {"class_path": "TopK", "k": 2, "expansion": 2}, "name": "again"},
]


def test_points_come_back_trained_in_their_order_and_nothing_is_written():
    trained = saelight.sweep.run(POINTS, BASE)
    assert [type(point.sae).__name__ for point in trained] == ["TopKSAE", "ReLUSAE", "TopKSAE", "TopKSAE"]
    assert [point.name for point in trained][1::2] == ["mine", "again"]
    assert trained[0].sae is trained[3].sae
    assert trained[0].row["metrics"]["l0"] == 2
    assert trained[1].row["steps"] == 40
    assert not list(Path().iterdir())
    assert not any(p.requires_grad for p in trained[0].sae.parameters())


def test_the_saes_are_those_that_files_give():
    (point,) = saelight.sweep.run(POINTS[:1], BASE)
    saes = {"a": {"class_path": "TopK", "init_args": {"k": 2, "expansion": 2, "seed": 0}}}
    assert saelight_("fit", "--config", write(BASE | {"model": {"saes": saes}})) == 0
    for name, tensor in saelight.load("runs/cfg/saes/a").state_dict().items():
        if name not in point.sae.training_state:
            assert torch.equal(tensor, point.sae.state_dict()[name]), name


def test_points_may_say_all_themselves():
    whole = {"sae": {"class_path": "TopK", "k": 2}, "trainer": BASE["trainer"] | {"max_steps": 3}, "data": BASE["data"]}
    (point,) = saelight.sweep.run([whole])
    assert point.row["steps"] == 3


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "no points"),
        ([{"sae": {"class_path": "TopK", "kk": 2}}], "points: sae: TopK has no field 'kk'"),
        ([{"sea": {"lr": 1}}], "unknown key 'sea.lr'"),
        ([{"sae.class_path": "TopK", "data.path": "none"}], "no shards at none"),
    ],
)
def test_what_does_not_fit_is_refused(points, message):
    with pytest.raises(saelight.UserError, match=message):
        saelight.sweep.run(points, {"trainer": {"max_epochs": 1}, "data": {"class_path": "ActivationDataModule"}})
