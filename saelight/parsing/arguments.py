"""Argparse with errors of one line, and types of its arguments."""

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where to read on."""

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
