"""Every setting has a range, which refuses what is no value of its kind."""

import math
from dataclasses import fields
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np
import pytest

from saelight.bank import SAEBank
from saelight.callbacks.declarations import DECLARED
from saelight.data.activation_source import ActivationSource
from saelight.data.synthetic import SyntheticRows
from saelight.data.synthetic_source import SyntheticSource
from saelight.errors import UserError
from saelight.ranges import LONGEST, Duration, Range, checked, hints_of
from saelight.saes import JumpReLU, Matryoshka, ReLU, TopK
from saelight.saes.plain_data import variants
from saelight.schedules import Horizon, Schedule

OURS = [kind for kind in variants() if kind.__module__.startswith("saelight.")]
SETTINGS = [*OURS, Schedule, *DECLARED.values(), ActivationSource, SyntheticSource, SyntheticRows]


def numbers_in(hint: Any) -> bool:
    """Whether a value of this type is a number, or holds some."""
    if get_origin(hint) in (Literal, dict):
        return False
    return hint in (int, float) or any(map(numbers_in, get_args(hint)))


@pytest.mark.parametrize("declared", [*SETTINGS, SAEBank.__init__], ids=lambda declared: declared.__qualname__)
def test_every_number_that_can_be_set_has_a_range(declared):
    hints = hints_of(declared)
    names = {f.name for f in fields(declared)} if isinstance(declared, type) else hints.keys()
    assert [name for name in names if numbers_in(hints[name]) and get_origin(hints[name]) is not Annotated] == []


SHARE = Annotated[float, Range(least=0, most=1)]
STEPS = Annotated[int | None, Range(least=1, most=LONGEST)]
TIME = Annotated[int | float | dict[str, float] | None, Duration(zero=False, whole=False)]
BETAS = Annotated[tuple[float, float], Range(least=0, below=1)]


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (SHARE, [0, 1, 0.5, np.float32(0.25)], [-0.1, 1.1, math.nan, math.inf, True, "0.5", None, [0.5], 10**400]),
        (STEPS, [1, 10**15, None, np.int64(3)], [0, -1, 1.0, 2.5, True, "5", 10**30, math.inf]),
        (TIME, [1, 10**9, 0.5, {"epochs": 1}, {"tokens": 5e3}, None], [0, 0.0, 1.0, -1, math.nan, True, "x", 10**30]),
        (TIME, [], [{"epochs": 0}, {"epochs": math.nan}, {"steps": 1}, {}, {"epochs": 1, "tokens": 1}, {"epochs": "x"}]),
        (BETAS, [(0.9, 0.99)], [(0.9, 1.0), (math.nan, 0.9), ("x", 0.9)]),
        (Literal["a", 1], ["a", 1], ["b", True, 1.0, None, ["a"]]),
        (str | NoneType, ["a", None], [1, 0.5, False, ["a"], {}]),
    ],
)
def test_what_is_taken_and_what_is_not(hint, good, bad):
    for value in good:
        assert checked("it", value, hint) == value
    for value in bad:
        with pytest.raises(UserError, match=r"^it\b"):
            checked("it", value, hint)


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (SHARE, 2.0, "it must be in [0, 1], got 2.0"),
        (STEPS, 0, "it must be at least 1, got 0"),
        (STEPS, 2**70, "it must be at most 1e+15, got 1180591620717411303424"),
        (STEPS, 2**300, "it must be at most 1e+15, got a number of 301 bits"),
        (STEPS, "x" * 1000, "it must be a whole number or null, got 'xxx"),
        (Annotated[float, Range(above=0)], math.nan, "it must be above 0, got nan"),
    ],
)
def test_messages_are_short(hint, value, message):
    with pytest.raises(UserError) as error:
        checked("it", value, hint)
    assert str(error.value).startswith(message)
    assert len(str(error.value)) < 150


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (TopK, {"lr": math.inf}, "lr must be at most 10, got inf"),
        (TopK, {"lr": 1e-3, "schedule": Schedule(eta_min=0.1)}, "schedule.eta_min must be at most lr = 0.001, got 0.1"),
        (TopK, {"schedule": Schedule(eta_min=-1)}, "schedule.eta_min must be at least 0"),
        (TopK, {"schedule": Schedule(kind="warm_restarts", T_0=0)}, "schedule.T_0: 0 is no length of time"),
        (TopK, {"schedule": Schedule(warmup=1.0)}, "schedule.warmup: 1.0 is no length of time"),
        (TopK, {"schedule": "cosine"}, "schedule must be a Schedule, got 'cosine'"),
        (TopK, {"schedule": Schedule(kind="cosin")}, "schedule.kind must be trapezoid or"),
        (TopK, {"weight_decay": 1e9}, "weight_decay must be at most 100"),
        (TopK, {"encoder_scale": 1e30}, "encoder_scale must be at most 1000"),
        (TopK, {"aux_coefficient": math.inf}, "aux_coefficient must be at most 1000"),
        (TopK, {"k": 4, "k_aux": 10**9}, "k_aux = 1000000000 exceeds d_sae = 64"),
        (JumpReLU, {"k_aux": 10**9}, "k_aux = 1000000000 exceeds d_sae = 64"),
        (TopK, {"dead_after": 10**30}, "dead_after must be at most 1e"),
        (TopK, {"seed": 2**70}, "seed must be at most 9.2"),
        (TopK, {"expansion": 1e9}, "expansion must be at most 65536"),
        (TopK, {"betas": (0.9, 1.0)}, "betas must be in [0, 1), got 1.0"),
        (TopK, {"tied_init": "yes"}, "tied_init must be true or false"),
        (ReLU, {"sparsity": math.inf}, "sparsity must be at most 10000"),
        (ReLU, {"resample_every": {"epochs": 0}}, "resample_every: {'epochs': 0} is no length of time"),
        (Matryoshka, {"group_fractions": []}, "group_fractions must add up to 1"),
    ],
    ids=str,
)
def test_nonsense_is_refused_in_python(kind, given, message):
    with pytest.raises(UserError) as error:
        kind(**given).build(8)
    assert message in str(error.value)


def test_a_default_rate_below_eta_min_is_refused():
    with pytest.raises(UserError, match=r"eta_min must be at most lr = 0.001, got 0.01"):
        Schedule(eta_min=0.01).factor(1e-3, Horizon(100, 100, 64))
