"""Sweeps: from one file to points, groups, runs, results and figures. From Python: `saelight.sweep.run(points, base)`."""

from typing import Any

__all__ = ["run"]


def __getattr__(name: str) -> Any:
    if name == "run":
        from saelight.sweep.execute.in_memory import run

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
