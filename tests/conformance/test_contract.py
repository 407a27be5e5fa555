"""The contract: what a class has to have to be a variant, and what follows from its own declarations."""

import copy
import pickle
from dataclasses import dataclass, field

import pytest
import torch

import saelight
from saelight.run.memory import sae_bytes
from saelight.saes import SAE, BatchTopK, Matryoshka, Moment, Penalised, ReLU, SAEConfig, TopK
from saelight.saes.memory_factors import DENSE, MemoryFactors
from saelight.saes.plain_data import configure, from_spec, variants
from saelight.saes.topk import TopKSAE
from saelight.schedules import Horizon, Schedule
from tests.support.activations import sparse_activations
from tests.support.banks import assert_equal
from tests.support.variants import VARIANTS


@dataclass(kw_only=True)
class Unfinished(SAEConfig):
    """A config whose module lacks half of the contract."""


class UnfinishedSAE(SAE, config=Unfinished):
    def encode(self, x):
        return x


@dataclass(kw_only=True)
class Greedy(TopK):
    """A TopK that holds more."""


class GreedySAE(TopKSAE, config=Greedy):
    memory = MemoryFactors(parameters=1.0, latents=2.0, latents_kept=3.0)


def test_a_module_without_losses_cannot_be_built():
    with pytest.raises(TypeError, match=r"abstract.*losses"):
        Unfinished(d_sae=4).build(8)


@pytest.mark.parametrize("config", [SAEConfig, Penalised])
def test_a_config_that_no_module_is_bound_to_has_no_instances(config):
    with pytest.raises(TypeError, match="abstract"):
        config()
    assert config not in variants()


def test_a_variant_that_wants_to_resample_needs_a_way_to():
    moment = Moment(0, Horizon(1, 1, 1))
    with pytest.raises(NotImplementedError, match="TopKSAE wants to resample"):
        TopK(d_sae=4, k=1).build(8).resample(torch.zeros(2, 8), torch.zeros(2, 8), moment)


def test_a_module_is_bound_to_its_config_and_to_those_that_inherit_it():
    class Other(TopK):
        pass

    assert type(Other(d_sae=4, k=1).build(8)) is TopK(d_sae=4).module
    assert type(BatchTopK(d_sae=4, k=1).build(8)).__name__ == "BatchTopKSAE"


def test_memory_factors_are_the_modules_own_and_a_nested_ones_its_bases():
    assert Unfinished().module.memory == DENSE
    weights, latents = 4 * 300, 4 * 100 * 16
    assert sae_bytes(Greedy(), 300, 16, 100) == (3 * weights + 3 * latents, weights + 2 * latents)
    assert Matryoshka(base=ReLU()).module.memory == ReLU().module.memory != DENSE


@pytest.mark.parametrize("base", ["AbsTopK", "Gated", "Matryoshka"])
def test_only_variants_that_say_so_are_nested(base):
    with pytest.raises(saelight.UserError, match=rf"one of .*TopK, .*ReLU.*, not {base}"):
        Matryoshka(d_sae=8, base=getattr(saelight, base)()).build(4)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda sae: pickle.loads(pickle.dumps(sae))], ids=["copied", "pickled"])
def test_a_nested_sae_is_copied_whole(again):
    sae = VARIANTS["matryoshka"].build(16)
    other, x = again(sae), sparse_activations(8)
    assert type(other) is type(sae)
    assert_equal(other.state_dict(), sae.state_dict())
    assert torch.equal(other(x), sae(x))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_config_comes_back_from_its_plain_data(variant):
    assert from_spec(VARIANTS[variant].spec()) == VARIANTS[variant]


def test_a_part_of_a_nested_config_keeps_the_rest_of_its_default():
    @dataclass(kw_only=True)
    class Cosine(TopK):
        schedule: Schedule = field(default_factory=lambda: Schedule(kind="cosine"))

    assert configure(Cosine, {"schedule": {"warmup": 5}}).schedule == Schedule(kind="cosine", warmup=5)
    assert configure(Matryoshka, {"base": {"init_args": {"k": 3}}}).base == BatchTopK(k=3)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (TopK, {"k": 4.5}, "k: expected int, got 4.5"),
        (TopK, {"k": True}, "k: expected int, got True"),
        (TopK, {"lr": "fast"}, "lr: expected float or null, got fast"),
        (TopK, {"betas": [0.9]}, r"betas: expected tuple\[float, float\] or null, got \[0.9\]"),
        (TopK, {"k_anneal": {"epochs": "two"}}, "k_anneal: expected int or float"),
        (TopK, {"schedule": {"kind": "cosin"}}, "schedule.kind: expected one of .*; did you mean 'cosine'?"),
        (TopK, {"schedule": {"kin": 1}}, "Schedule has no field 'kin'; did you mean 'kind'?"),
        (TopK, {"schedule": None}, "schedule: expected Schedule, got None"),
        (TopK, {"sparsity": 1.0}, "TopK has no field 'sparsity'"),
        (TopK, [1], "TopK: expected its fields by name"),
        (Matryoshka, {"base": {"class_path": "os.path", "init_args": {}}}, "base: no SAE class 'os.path' is imported"),
        (Matryoshka, {"base": 3}, "base: expected SAEConfig, got 3"),
    ],
)
def test_values_of_the_wrong_type_are_refused(kind, fields, message):
    with pytest.raises(saelight.UserError, match=message):
        configure(kind, fields)


@pytest.mark.parametrize("spec", [None, 3, {}, {"class_path": 3}, {"class_path": "saelight.saes.topk.TopK", "k": 3}])
def test_what_is_no_spec_is_refused(spec):
    with pytest.raises(saelight.UserError, match="an SAE is written"):
        from_spec(spec)


def test_numbers_become_what_the_field_is():
    config = configure(TopK, {"lr": 1, "betas": [0, 0.5], "k_anneal": 5})
    assert (config.lr, config.betas, config.k_anneal) == (1.0, (0.0, 0.5), 5)
    assert [type(value) for value in (config.lr, *config.betas, config.k_anneal)] == [float, float, float, int]
