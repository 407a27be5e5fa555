"""The names of metrics that are known without torch are those that a run measures."""

import torch

from saelight.bank.evaluation import Evaluation
from saelight.metrics import token_metrics
from saelight.run.metric_names import EVALUATED, FINAL, LARGER_IS_BETTER, ON_MODEL, TRUTH, UNSPLICED
from saelight.saes import TopK


def test_the_names_are_those_of_the_metrics():
    evaluation = Evaluation([sae := TopK(d_sae=16, k=2).build(8, 0)])
    truth_GD = torch.eye(8)
    assert sorted(evaluation.keys(truth_GD)) == sorted([*EVALUATED, TRUTH])
    x_BD = torch.randn(64, 8)
    evaluation.update([sae], x_BD, x_BD)
    assert evaluation.finish([sae], truth_GD)[0].keys() == {*EVALUATED, TRUTH}
    assert list(evaluation.latents(sae, 0)) == list(FINAL)


def test_which_way_is_better_is_what_the_metrics_say():
    said = {name: metric.higher_is_better for name, metric in token_metrics(8, 16).items()}
    assert {name for name, larger in said.items() if larger} == LARGER_IS_BETTER - {TRUTH, *FINAL, *ON_MODEL, *UNSPLICED}
