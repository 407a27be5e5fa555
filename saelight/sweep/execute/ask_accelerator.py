"""What only a process that uses CUDA can tell, asked of a short-lived one: a context holds some 400 MB of a device for as
long as its process lives, and a sweep's runner lives as long as the sweep.

    python -m saelight.sweep.execute.ask_accelerator devices        # [["cuda:0", name, bytes], …]
    python -m saelight.sweep.execute.ask_accelerator rate cuda:0    # operations per second of large products
"""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from saelight.errors import UserError


def ask(*words: str) -> Any:
    """What a child answers. Raises `UserError` when it fails, as where a driver does not fit."""
    child = subprocess.run([sys.executable, "-m", __spec__.name, *words], capture_output=True, text=True)
    if child.returncode:
        why = child.stderr.strip().rpartition("\n")[2]
        raise UserError(f"CUDA does not answer here ({why}): repair it, or hide its devices by CUDA_VISIBLE_DEVICES=''")
    return json.loads(child.stdout.rpartition("\n")[2])


def _devices() -> list[tuple[str, str, int]]:
    import torch

    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [(f"cuda:{i}", properties.name, properties.total_memory) for i, properties in enumerate(found)]


def _rate(device: str) -> float:
    from saelight.sweep.execute.products import rate

    return rate(device)


ASKED: dict[str, Callable[..., Any]] = {"devices": _devices, "rate": _rate}

if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(ASKED[sys.argv[1]](*sys.argv[2:])))
