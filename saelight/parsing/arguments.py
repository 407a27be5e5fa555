"""Types of argparse's arguments."""

import argparse
import sys
from typing import NoReturn


class OneLineArguments(argparse.ArgumentParser):
    """argparse's parser: an error is one line on stderr, and exit code 2."""

    def error(self, message: str) -> NoReturn:
        print(f"saelight: error: {message} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def count(text: str, least: int = 1) -> int:
    """A whole number of at least 1."""
    if not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return int(text)


def whole(text: str) -> int:
    """A whole number of at least 0."""
    return count(text, 0)
