"""What the tests of the operators share."""

import pytest

from saelight.ops import bags, entries, parts, select


@pytest.fixture(params=["compiled", "compiled, two threads", "torch"])
def loops(request, monkeypatch):
    """Compiled loops, and what stands in for them where numba is missing."""
    if request.param == "torch":
        for module in (bags, entries, select):
            monkeypatch.setattr(module, "compiled", lambda: None)
    else:
        assert parts.compiled() is not None
        monkeypatch.setattr(parts, "_SMALLEST", 1)
        monkeypatch.setattr(parts.torch, "get_num_threads", lambda: 1 + ("two" in request.param))
