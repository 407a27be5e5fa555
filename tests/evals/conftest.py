"""A language model in a folder, text for it, and a run of SAEs on its first layer."""

import shutil
from pathlib import Path

import pytest

from tests.support import language_model


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """`model/`, `texts/`, `short.txt` and the run `runs/tiny` with its SAEs `topk-2` and `topk-8`."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("language")
    language_model.lay_out(folder)
    shutil.copy(folder / "texts" / "5.txt", folder / "text.txt")
    (folder / "short.txt").write_text("the old cat")
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
