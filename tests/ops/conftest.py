"""What the tests of the operators share."""

import pytest

from saelight.ops import bags, dispatch, entries, select, sparse


@pytest.fixture(params=["compiled", "compiled, two threads", "torch", "triton"])
def loops(request, monkeypatch):
    """Compiled loops, what stands in for them where numba is missing, and on CUDA Triton's kernels, here interpreted."""
    if request.param in ("torch", "triton"):
        for module in (bags, entries, select):
            monkeypatch.setattr(module, "loops_for", lambda values: None)
    else:
        assert dispatch.compiled() is not None
        monkeypatch.setattr(dispatch, "_SMALLEST", 1)
        monkeypatch.setattr(dispatch.torch, "get_num_threads", lambda: 1 + ("two" in request.param))
    if request.param == "triton":
        for module in (bags, select, sparse):
            monkeypatch.setattr(module, "kernels_for", lambda values: interpreted())
    return request.param


def interpreted():
    """The CUDA kernels in Triton's interpreter, which works on the CPU."""
    from saelight.ops import cuda_kernels

    return cuda_kernels
