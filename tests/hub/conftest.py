"""A hub on loopback, and SAEs to share on it."""

import json
import shutil

import pytest

from saelight.convert import write
from saelight.saes import HardConcrete
from saelight.saes.provenance import Provenance
from tests.support.conversions import CONFIGS, SOURCE, D, F, trained
from tests.support.hub_server import standing_in


@pytest.fixture
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def hub(cache):
    """A hub, asked by an account that may write."""
    with standing_in(cache) as hub:
        yield hub


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a run of four SAEs, with its results."""
    folder = tmp_path_factory.mktemp("run")
    saes = {name: trained(CONFIGS[config]) for name, config in VARIANTS.items()}
    saes["gates"] = HardConcrete(d_sae=F).build(D, seed=1)
    saes["gates"].provenance = Provenance(name="gates", source=SOURCE)
    rows = []
    for i, (name, sae) in enumerate(saes.items()):
        write(sae, folder / "saes" / name)
        metrics = {"l0": 2.0 + i, "fvu": 0.3 / (1 + i), "dead": 0.05, "mmcs": None}
        ended = {"state": "finished", "reason": None, "steps": 5, "tokens": 500, "seconds": 1.0}
        about = {"model": SOURCE["model"], "hook": SOURCE["hook"], "d_sae": F, "seed": 1}
        rows.append({"name": name, "config": sae.config.spec(), "metrics": metrics, **ended, **about})
    (folder / "results.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"not to be shared")
    return folder


@pytest.fixture(scope="session")
def saes(run, tmp_path_factory):
    """The same SAEs in a folder that knows nothing of their training, whose card has no picture to draw."""
    return shutil.copytree(run / "saes", tmp_path_factory.mktemp("plain") / "saes")


VARIANTS = {"batch": "batch_topk", "relu": "relu", "top": "topk"}
