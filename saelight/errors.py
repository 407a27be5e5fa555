"""The one exception for what a user can mend, and the nearest name for its message."""

import difflib
from collections.abc import Iterable

_LONGEST = 200  # characters of another exception's words


class UserError(ValueError):
    """Bad input. The message is one line that says what is wrong and what to do about it; the CLI prints it and exits
    with 1."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known name nearest to `name`, whatever its case, or nothing."""
    by_lower = {word.lower(): word for word in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def one_line(error: BaseException) -> str:
    """Another exception's kind and words in one line, for the message of a `UserError`."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_LONGEST]}".removesuffix(": ")
