"""SAEBench by one command: what it is called with is what it takes, and what it cannot do is said before it starts."""

import inspect
from pathlib import Path

import pytest
import torch

from saelight.evals import bench_suite
from saelight.evals.bench_suite import EVALUATIONS
from saelight.ops.normalisation import Normalisation
from saelight.run.export import write
from saelight.saes import TopK
from tests.conformance.peers.support import peer
from tests.support.commands import refused

pytestmark = pytest.mark.filterwarnings("ignore")
peer("sae_bench")
D = 512


@pytest.fixture
def sae(monkeypatch, tmp_path):
    """An SAE as one of Pythia's smallest has it, and no hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    sae = TopK(d_sae=32, k=4).build(D, seed=0)
    source = {"model": "EleutherAI/pythia-70m-deduped", "hook": "gpt_neox.layers.3", "context": 128}
    write(sae, Path("one"), name="one", seed=0, normalisation=Normalisation(), source=source, training={})
    return "one"


def test_no_hub_is_said_before_anything_runs(sae, capsys, monkeypatch):
    hub = peer("huggingface_hub")

    def out_of_reach(model, **_):
        raise ConnectionError(f"no route to {model}")

    # The client has read its address when it was imported.
    monkeypatch.setattr(hub, "model_info", out_of_reach)
    line = refused(capsys, "evaluate", sae, "--suite", "sae_bench")
    assert "the hub does not give EleutherAI/pythia-70m-deduped (ConnectionError: no route" in line
    assert not Path("sae_bench").exists()


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--model", "my-own"], "which knows no 'my-own': give --model"),
        (["--suite_evaluations", "autointerp"], "no evaluation 'autointerp' of SAEBench is run; there are core, "),
    ],
)
def test_what_it_cannot_do_is_one_line(args, line, sae, capsys):
    assert line in refused(capsys, "evaluate", sae, "--suite", "sae_bench", *args)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_it_takes_what_it_is_given(name):
    evaluation = EVALUATIONS[name]
    main = peer(f"sae_bench.evals.{evaluation.module}.main")
    if evaluation.config is None:
        assert inspect.signature(main.multiple_evals).parameters["dataset"].default in evaluation.needs
        return
    settings = {"model_name": "gpt2", "random_seed": 1, "llm_batch_size": 2, "llm_dtype": "float32", **evaluation.settings}
    config = getattr(main, evaluation.config)(**settings)
    inspect.signature(main.run_eval).bind(config, [("a", None)], "cpu", "out", False)


def test_the_sae_is_as_sae_bench_wants_it(sae):
    (given,) = bench_suite.gather([sae])
    lens = bench_suite._in_sae_lens(given, "pythia-70m-deduped", Path("saes"), "float32", "cpu")
    utilities = peer("sae_bench.sae_bench_utils.general_utils")
    _, formatted, _ = utilities.load_and_format_sae("one", lens, "cpu")
    assert (formatted.cfg.hook_name, formatted.cfg.hook_layer) == ("blocks.3.hook_resid_post", 3)
    assert formatted.cfg.model_name == "pythia-70m-deduped"
    x = torch.randn(8, D)
    torch.testing.assert_close(formatted(x), given.sae(x), atol=1e-5, rtol=1e-5)
