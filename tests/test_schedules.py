"""Schedules against PyTorch's own, and the units of time."""

import pytest
import torch

from saelight.errors import UserError
from saelight.schedules import Horizon, Schedule, in_steps, ramp

HORIZON = Horizon(steps=140, steps_per_epoch=20, tokens_per_step=512)


def rates(schedule: Schedule, lr: float = 0.1, steps: int = 140) -> list[float]:
    factor = schedule.factor(lr, HORIZON)
    return [lr * factor(step) for step in range(steps)]


def reference(make, steps: int = 140) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler = make(optimizer)
    values = []
    for _ in range(steps):
        values.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize("T_mult", [1, 2, 3])
def test_warm_restarts_are_those_of_pytorch(T_mult):
    ours = rates(Schedule(kind="warm_restarts", T_0=9, T_mult=T_mult, eta_min=0.01, warmup=0))
    theirs = reference(lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 9, T_mult, 0.01))
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_cosine_and_linear_are_those_of_pytorch():
    cosine = rates(Schedule(kind="cosine", eta_min=0.01, warmup=0))
    assert cosine == pytest.approx(reference(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 140, 0.01)), rel=1e-6)
    linear = rates(Schedule(kind="linear", eta_min=0.01, warmup=0))
    assert linear == pytest.approx(reference(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.1, 140)), rel=1e-6)
    assert rates(Schedule(kind="constant", warmup=0)) == [0.1] * 140


@pytest.mark.parametrize("steps", range(90, 120))
def test_warm_restarts_are_three_whole_cycles_whatever_the_length(steps):
    horizon = Horizon(steps, steps, 1)
    values = [Schedule(kind="warm_restarts").factor(1.0, horizon)(step) for step in range(steps)]
    restarts = [i for i in range(1, steps) if values[i] > values[i - 1] + 0.5]
    assert len(restarts) == 2
    assert values[-1] < 0.05


@pytest.mark.parametrize(("decay", "constant"), [(None, 112), (0.5, 70), (14, 126), ({"epochs": 1}, 120), (1.0, 0)])
def test_trapezoid_is_constant_and_then_falls_on_a_line(decay, constant):
    values = rates(Schedule(decay=decay, eta_min=0.02, warmup=0))
    assert values[:constant] == [0.1] * constant
    falls = [a - b for a, b in zip(values[constant:], [*values[constant + 1 :], 0.02], strict=True)]
    assert falls == pytest.approx([0.08 / (140 - constant + 1)] * len(falls)), "evenly, to eta_min after the last step"


@pytest.mark.parametrize(
    ("kind", "settings"), [("cosine", {"decay": 0.2}), ("trapezoid", {"T_0": 5}), ("linear", {"T_mult": 2})]
)
def test_a_setting_of_another_kind_is_refused(kind, settings):
    with pytest.raises(UserError, match=f"drop it for kind '{kind}'|drop them for kind '{kind}'"):
        Schedule(kind=kind, **settings).check()


def test_warmup_is_linear_and_ends_at_the_peak():
    values = rates(Schedule(kind="constant", warmup=4))
    assert values[:6] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.1])


@pytest.mark.parametrize(
    ("time", "steps"), [(7, 7), (0.5, 70), (1.0, 140), ({"epochs": 2}, 40), ({"epochs": 0.5}, 10), ({"tokens": 5120}, 10)]
)
def test_units_of_time(time, steps):
    assert in_steps(time, HORIZON) == steps


def test_ramp():
    assert [ramp(step, 4) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert ramp(0, 0) == 1


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(kind="cosine", T_0=3),
        Schedule(T_mult=0),
        Schedule(warmup=1.5),
        Schedule(warmup=-1),
        Schedule(T_0={"hours": 3}),
    ],
)
def test_settings_without_sense_are_refused(schedule):
    with pytest.raises(UserError):
        schedule.check()
