"""SAEs of other libraries, read and written: `saelight.convert.read(path)`, `.write(sae, path, to="sae_lens")`.

One format is one file. Names load on first use.
"""

from typing import Any

__all__ = ["convert", "read", "write"]


def __getattr__(name: str) -> Any:
    if name == "read":
        from saelight.convert.reading import read

        return read
    if name in __all__:
        from saelight.convert import writing

        return getattr(writing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
