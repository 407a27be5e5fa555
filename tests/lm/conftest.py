"""A language model for the tests of this folder."""

import pytest

from tests.support import language_model


@pytest.fixture(scope="session")
def llama():
    pytest.importorskip("transformers")
    model = language_model.trained_model(steps=8)
    model.config.use_cache = False
    return model.requires_grad_(False)
