"""SAEs to and from a hub: `saelight.hub.push(folder, "user/repo")`; `saelight.load("hf://user/repo/path")` reads them.

Names load on first use.
"""

from typing import Any

__all__ = ["push"]


def __getattr__(name: str) -> Any:
    if name == "push":
        from saelight.hub.pushing import push

        return push
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
