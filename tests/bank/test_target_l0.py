"""SAEs that aim at an L0 reach it, whatever their penalty and schedule."""

import statistics

import pytest
import torch
from lightning.pytorch.loggers.logger import Logger

from saelight.errors import UserError
from saelight.saes import Gated, GatedHardConcrete, HardConcrete, JumpReLU, Moment, ReLU
from saelight.schedules import Horizon, Schedule
from tests.support.activations import sparse_activations
from tests.support.banks import bank, fit

TARGET = 6.0
KINDS = ["trapezoid", "cosine", "linear", "constant"]
PENALISED = {
    "relu": (ReLU, {}),
    "relu-p": (ReLU, {"p_end": 0.5}),
    "gated": (Gated, {}),
    "hard-concrete": (HardConcrete, {}),
    "gated-hard-concrete": (GatedHardConcrete, {}),
    "jump-step": (JumpReLU, {}),
    "jump-tanh": (JumpReLU, {"penalty": "tanh"}),
    "jump-target": (JumpReLU, {"penalty": "target"}),
}


class Memory(Logger):
    """Keeps what is logged."""

    name = version = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics, step=None) -> None:
        self.rows.append(metrics)

    def log_hyperparams(self, *args, **kwargs) -> None:
        pass


@pytest.fixture(scope="module")
def run():
    """Every penalised variant with every schedule, all on one pass: the logged L0s by name, measured as at inference."""
    common = {"d_sae": 64, "lr": 3e-3, "target_l0": TARGET}
    saes = {
        f"{name}-{kind}": make(**common, **own, schedule=Schedule(kind=kind))
        for name, (make, own) in PENALISED.items()
        for kind in KINDS
    }
    memory = Memory()
    fit(bank(saes), sparse_activations(64_000), logger=memory, log_every_n_steps=1)
    return {name: [row[f"{name}/train/l0"] for row in memory.rows] for name in saes}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PENALISED)
def test_l0_of_the_last_quarter_is_the_target(name, kind, run):
    l0 = run[f"{name}-{kind}"]
    assert len(l0) == 1000
    assert statistics.mean(l0[750:]) == pytest.approx(TARGET, rel=0.05)


def test_the_controller_moves_sparsity_the_right_way():
    horizon = Horizon(100, 100, 64)
    sae = ReLU(d_sae=32, target_l0=4.0).build(16)
    high, low = (torch.tensor([value, 1.0]) for value in (30.0, 0.5))
    start = sae.sparsity(Moment(50, horizon))
    for step in range(40, 50):
        sae.absorb(high, Moment(step, horizon))
    raised = sae.sparsity(Moment(50, horizon))
    for step in range(50, 90):
        sae.absorb(low, Moment(step, horizon))
    assert start < raised
    assert sae.sparsity(Moment(90, horizon)) < raised


def test_a_batch_without_any_active_latent_keeps_lambda_finite():
    sae = ReLU(d_sae=32, target_l0=4.0).build(16)
    for step in range(100):
        sae.absorb(torch.tensor([0.0, 0.0]), Moment(step, Horizon(100, 100, 64)))
    assert 0 < sae.sparsity(Moment(99, Horizon(100, 100, 64))) < 0.1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ReLU(sparsity=0.1, target_l0=5), "exclude each other"),
        (ReLU(target_l0=0), "target_l0 must be above 0"),
        (HardConcrete(input_dependent=False, target_l0=5), "needs input_dependent gates"),
        (JumpReLU(penalty="target"), "penalty target needs target_l0"),
        (JumpReLU(aux_coefficient=0.1, pre_activation_coefficient=3e-6), "pre_activation_coefficient exclude each other"),
        (JumpReLU(k_aux=0), "k_aux must be at least 1"),
        (Gated(d_sae=32, target_l0=32), "target_l0 = 32 is not below d_sae = 32; lower it or widen the SAE"),
    ],
)
def test_targets_that_make_no_sense_are_refused(config, message):
    with pytest.raises(UserError, match=message):
        config.build(16)


def test_a_restart_in_the_last_quarter_warns(activations):
    late = Schedule(kind="warm_restarts", T_0=0.3, T_mult=1)
    with pytest.warns(UserWarning, match="SAE 'late': the learning rate restarts at step 30, in the last quarter"):
        fit(bank({"late": ReLU(target_l0=4.0, schedule=late), "well": ReLU(target_l0=4.0)}), activations)
