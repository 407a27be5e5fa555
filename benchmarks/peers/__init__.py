"""Other libraries, one a file, for benchmarks beside saelight: each one's training step behind one call (training.py), and
what it learns from rows (learning.py).

pip install --no-deps -r benchmarks/peers/requirements.txt    # into the environment of `make conformance-peers`
python -m benchmarks.peers --help                       # checks that each of them trains
"""

import io
import warnings
from collections.abc import Iterable
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from types import ModuleType

from benchmarks.peers.training import Gate, Peer, Training, fastest

LIBRARIES = ("sae_lens", "dictionary_learning", "sparsify", "overcomplete")

__all__ = ["LIBRARIES", "Gate", "Peer", "Training", "binding", "peers"]


def binding(library: str) -> ModuleType:
    """This package's module for a library."""
    # Importing them brings deprecations and a note that Triton is missing.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return import_module(f"{__name__}.{library}")


def peers(libraries: Iterable[str] = LIBRARIES) -> list[Peer]:
    """Each variant of each library twice: "fp32" as the library comes, "bf16" under autocast and `fast_matmuls`."""
    found = []
    for library in libraries:
        module = binding(library)
        for variant in module.KINDS:
            found.append(Peer(library, variant, "fp32", partial(module.build, variant, "fp32")))
            found.append(Peer(library, variant, "bf16", fastest(partial(module.build, variant, "bf16"))))
    return found
