"""`saelight shards harvest | info | verify`. Nothing heavy is imported before a command runs."""

from collections.abc import Callable

from jsonargparse import auto_cli

from saelight.data.harvest.harvester import harvest
from saelight.parsing.messages import OneLineParser


def info(path: str) -> None:
    """Print what a folder of shards holds.

    Args:
        path: Folder of the shards.
    """
    from saelight.data.shards.verify import summary

    print(summary(path))


def verify(path: str) -> None:
    """Check checksums, finite values and sums of a folder of shards.

    Args:
        path: Folder of the shards.
    """
    from saelight.data.shards.verify import verify

    print(verify(path))


COMMANDS: dict[str, Callable[..., None]] = {"harvest": harvest, "info": info, "verify": verify}


def run(args: list[str]) -> None:
    """Run one command."""
    name = args[0] if args else ""
    if name in COMMANDS:
        # What a harvest needs is given by name, or in a config.
        prog = f"saelight shards {name}"
        auto_cli(COMMANDS[name], parser_class=OneLineParser, as_positional=name != "harvest", prog=prog, args=args[1:])
    else:
        auto_cli(dict(COMMANDS), parser_class=OneLineParser, prog="saelight shards", args=args)
