"""A language model in a folder, text for it, and a run of SAEs on its first layer."""

import shutil
from pathlib import Path

import pytest

import saelight
from tests.support import language_model
from tests.support.runs import trainer


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """`model/`, `text.txt`, `short.txt` and the run `runs/tiny` with its SAEs `topk-2` and `topk-8`."""
    pytest.importorskip("transformers")
    from saelight.data.harvest.harvester import harvest

    folder = tmp_path_factory.mktemp("language")
    language_model.save(folder / "model")
    for seed, name in enumerate(("text", "more")):
        (folder / f"{name}.txt").write_text(language_model.text(60, seed=5 + seed))
    (folder / "short.txt").write_text("the old cat")
    files = [f"{folder}/text.txt", f"{folder}/more.txt"]
    harvest(str(folder / "model"), files, ["layers.0"], str(folder / "acts"), context=language_model.CONTEXT)
    data = saelight.ActivationDataModule(path=str(folder / "acts"), batch_size=64)
    saes = {f"topk-{k}": saelight.TopK(d_sae=64, k=k, lr=5e-3) for k in (2, 8)}
    run = trainer(folder, name="tiny", max_epochs=4, log_every_n_steps=50)
    run.fit(saelight.SAEBank(saes, d_in=data.d_in), data)
    return folder


@pytest.fixture(autouse=True)
def no_bars_of_others():
    """transformers' own bar is no part of what the tests look at."""
    logging = pytest.importorskip("transformers").utils.logging
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture
def here(made, tmp_path):
    """A copy of `made` in the working folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Path()
