"""That the CUDA kernels are code a GPU can run: compiled to binaries for two kinds of it, which needs none.

What they compute is tested in Triton's interpreter, by test_sparse.py and test_select.py.
"""

import os
import subprocess
import sys

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from saelight.ops import cuda_kernels as ours

tables, places = {"table": "*fp32", "left": "*fp32", "right": "*fp32", "out": "*fp32", "weights": "*fp32"}, "*i64"
for kernel, entries in ((ours._weighted_sums, ours._ENTRIES), (ours._dots, ours._ENTRIES_OF_DOTS)):
    constants = {"ENTRIES": entries, "WIDTH": ours._WIDTH}
    kinds = {name: tables.get(name, "i32" if name in "ED" else places) for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=kinds | dict.fromkeys(constants, "constexpr"), constexprs=constants)
    for capability in (80, 90):
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert compiled.asm["cubin"]
        print(kernel.__name__, capability)
"""


def test_they_compile_for_two_generations(tmp_path):
    # Not interpreted, and Triton 3.9 warns of its next version's rounding unless told.
    known = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environ = known | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", COMPILE], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["_weighted_sums", "80", "_weighted_sums", "90", "_dots", "80", "_dots", "90"]
