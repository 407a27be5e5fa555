"""Every distribution of W&B's, against scipy's: what is drawn has the quantiles that W&B's own definition gives it."""

import math

import numpy as np
import pytest
from scipy import stats

from saelight.errors import UserError
from saelight.sweep.execute.optuna_chooser import OptunaChooser
from saelight.sweep.plan.distributions import RandomChooser, read_distribution
from saelight.sweep.plan.points import expand
from saelight.sweep.plan.spec import read
from tests.support.sweeps import write

N = 4000
LOW, HIGH = 1e-4, 1e-2
LOG = stats.loguniform(LOW, HIGH)
DEFINED = {
    "uniform": ({"min": 2, "max": 5.0}, stats.uniform(2, 3)),
    "log_uniform": ({"min": math.log(LOW), "max": math.log(HIGH)}, LOG),
    "log_uniform_values": ({"min": LOW, "max": HIGH}, LOG),
    # log(1/X) is uniform between min and max.
    "inv_log_uniform": ({"min": math.log(1 / HIGH), "max": math.log(1 / LOW)}, LOG),
    "inv_log_uniform_values": ({"min": LOW, "max": HIGH}, LOG),
    "normal": ({"mu": 3, "sigma": 0.5}, stats.norm(3, 0.5)),
    "log_normal": ({"mu": -7, "sigma": 2}, stats.lognorm(2, scale=math.exp(-7))),
    "beta": ({"a": 2, "b": 5}, stats.beta(2, 5)),
}
CONTINUOUS = [*DEFINED.items(), ("normal", ({}, stats.norm())), ("log_normal", ({}, stats.lognorm(1)))]
CONTINUOUS += [("beta", ({}, stats.uniform()))]


def drawn(spec: dict, n: int = N) -> np.ndarray:
    distribution = read_distribution(spec, "here")
    assert distribution is not None
    chooser = RandomChooser([7])
    return np.array([distribution.draw("key", chooser) for _ in range(n)])


@pytest.mark.parametrize(("kind", "defined"), CONTINUOUS)
def test_values_are_distributed_as_defined(kind, defined):
    arguments, expected = defined
    assert stats.kstest(drawn({"distribution": kind, **arguments}), expected.cdf).pvalue > 0.001


@pytest.mark.parametrize(("kind", "q"), [("uniform", 0.25), ("log_uniform_values", 0.002), ("normal", 0.1), ("beta", 0.2)])
def test_quantised_values_are_the_nearest_multiples_of_q(kind, q):
    arguments, expected = DEFINED[kind]
    values = drawn({"distribution": f"q_{kind}", "q": q, **arguments})
    assert np.allclose(values, np.round(values / q) * q, rtol=0, atol=1e-12)
    for value in set(values.tolist()):
        share = expected.cdf(value + q / 2) - expected.cdf(value - q / 2)
        assert abs(np.mean(values == value) - share) < 4 * math.sqrt(0.25 / N)


def test_q_is_1_and_its_multiples_whole_unless_told():
    for kind in ("uniform", "log_uniform", "log_uniform_values", "normal", "log_normal", "beta"):
        arguments = {"min": 1, "max": 3} if "uniform" in kind else {}
        assert all(type(value) is int for value in drawn({"distribution": f"q_{kind}", **arguments}, 20).tolist())


def test_whole_numbers_between_whole_bounds():
    assert set(drawn({"min": 2, "max": 5}, 100).tolist()) == {2, 3, 4, 5}
    assert set(drawn({"distribution": "int_uniform", "min": 2, "max": 3}, 50).tolist()) == {2, 3}


def test_a_search_draws_from_all_of_them_too():
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trials = [study.ask() for _ in range(200)]
    for kind, (arguments, expected) in DEFINED.items():
        distribution = read_distribution({"distribution": kind, **arguments}, "here")
        values = [distribution.draw(kind, OptunaChooser(trial)) for trial in trials]
        assert stats.kstest(values, expected.cdf).pvalue > 0.001, kind


TOP = {"base": "base.yaml", "method": "random", "run_cap": 1000, "sae": {"class_path": "TopK"}}


def test_probabilities_say_how_often():
    spec = {"values": [2, 3, 4], "probabilities": [0.2, 0.0, 0.8]}
    for more in ({}, {"distribution": "categorical"}, {"distribution": "categorical_w_probabilities"}):
        points, _ = expand(read(write(TOP | {"parameters": {"sae.k": spec | more}})))
        found = [point.settings["sae.k"] for point in points]
        assert 150 < found.count(2) < 250
        assert found.count(2) + found.count(4) == 1000


REFUSED = {
    "min above max": ({"distribution": "inv_log_uniform", "min": 2, "max": 1}, "inv_log_uniform needs min < max, got min 2"),
    "no logarithm": ({"distribution": "inv_log_uniform_values", "min": 0, "max": 1}, "needs 0 < min < max"),
    "values for logarithms": (
        {"distribution": "log_uniform", "min": 1, "max": 4096},
        r"log_uniform needs logarithms .*log_uniform_values takes the values themselves",
    ),
    "negative spread": ({"distribution": "normal", "sigma": -1}, "normal needs sigma of at least 0"),
    "shape 0": ({"distribution": "beta", "a": 0}, "beta needs a and b above 0"),
    "q of 0": ({"distribution": "q_normal", "q": 0}, "q_normal needs q above 0"),
    "an argument of another": ({"distribution": "normal", "min": 1}, "unknown key 'min'.*; normal takes mu, sigma"),
    "text": ({"distribution": "normal", "mu": "x"}, "numbers for normal's mu, sigma"),
    "not finite": ({"min": 0.0, "max": float("inf")}, "numbers for uniform's min, max"),
    "misspelt": ({"distribution": "lognormal"}, "unknown distribution 'lognormal'; did you mean 'log_normal'"),
    "unknown": ({"distribution": "cauchy"}, "unknown distribution 'cauchy'; known: uniform, .*inv_log_uniform_values"),
    "no name": ({"distribution": ["normal"]}, "expected a distribution's name"),
    "values with a range's": ({"distribution": "normal", "values": [1]}, "takes mu, sigma, not value or values"),
    "constant without one": ({"distribution": "constant", "values": [1]}, "'constant' needs `value`"),
    "one too few": ({"values": [1, 2], "probabilities": [1.0]}, "2 values and 1 probabilities"),
    "not in all 1": ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "add up to 1, these to 1.1"),
    "below 0": ({"values": [1, 2], "probabilities": [-0.5, 1.5]}, "a list of numbers of at least 0"),
    "of one value": ({"value": 1, "probabilities": [1]}, "probabilities go with `values`"),
    "none given": ({"distribution": "categorical_w_probabilities", "values": [1, 2]}, "needs `probabilities`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_distribution_is_refused_with_the_fix(case):
    spec, message = REFUSED[case]
    with pytest.raises(UserError, match=r"sweep.yaml: parameters.sae.k: .*" + message):
        read(write(TOP | {"parameters": {"sae.k": spec}}))


@pytest.mark.parametrize("spec", [{"distribution": "normal"}, {"values": [1, 2], "probabilities": [0.5, 0.5]}])
def test_a_grid_takes_lists_alone(spec):
    with pytest.raises(UserError, match=r"sae.k: a grid needs `values` alone; .* for method random or bayes"):
        read(write(TOP | {"method": "grid", "parameters": {"sae.k": spec}}))
