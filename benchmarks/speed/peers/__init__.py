"""Other libraries' training steps behind one call each (training.py), for benchmarks against saelight's own.

pip install --no-deps -r benchmarks/speed/requirements.txt    # into the environment of `make conformance-peers`
python -m benchmarks.speed.peers --help                       # checks that each of them trains
"""

import io
import warnings
from collections.abc import Iterable
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module

from benchmarks.speed.peers.training import Gate, Peer, Training, fastest

LIBRARIES = ("sae_lens", "dictionary_learning", "sparsify", "overcomplete")

__all__ = ["LIBRARIES", "Gate", "Peer", "Training", "peers"]


def peers(libraries: Iterable[str] = LIBRARIES) -> list[Peer]:
    """Each variant of each library twice: "fp32" as the library comes, "bf16" under autocast and `fast_matmuls`."""
    found = []
    for library in libraries:
        # Importing them brings deprecations and a note that Triton is missing.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            module = import_module(f"{__name__}.{library}")
        for variant in module.KINDS:
            found.append(Peer(library, variant, "fp32", partial(module.build, variant, "fp32")))
            found.append(Peer(library, variant, "bf16", fastest(partial(module.build, variant, "bf16"))))
    return found
