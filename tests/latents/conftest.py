"""A run whose latents were collected, in pieces."""

import pytest

from saelight.latents import collection
from tests.latents.shown_saes import columns, make_run, make_shards


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(collection, "_MOST", 300)


@pytest.fixture(scope="package")
def made(tmp_path_factory):
    """It is not to be changed; its shards are beside it."""
    folder = tmp_path_factory.mktemp("made")
    run = make_run(folder / "run", make_shards(folder / "shards", **columns()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collection, "_MOST", 300)
        collection.collect([run])
    return run
