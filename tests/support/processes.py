"""Commands in processes of their own."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def start(*args: str) -> subprocess.Popen[str]:
    """`saelight` with these arguments, begun; all that it says comes on its stdout."""
    return subprocess.Popen(
        [sys.executable, "-m", "saelight", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def script(folder: Path, *args: str) -> str:
    """The script itself, as people call it, in `folder`: its output. (DDP starts its other processes from sys.argv.)"""
    command = [sys.executable, "-W", "ignore", Path(sys.executable).parent / "saelight", *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_until(condition: Callable[[], object], seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to this"
        time.sleep(0.02)
