"""Types of argparse's arguments."""

import argparse


def count(text: str, least: int = 1) -> int:
    """A whole number of at least 1."""
    if not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return int(text)


def whole(text: str) -> int:
    """A whole number of at least 0."""
    return count(text, 0)
