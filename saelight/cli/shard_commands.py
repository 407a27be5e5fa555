"""`saelight shards harvest | info | verify`. Nothing heavy is imported before a command runs."""

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


COMMANDS = {"harvest": harvest, "info": info, "verify": verify}


def run(args: list[str]) -> None:
    """Run one command."""
    name = args[0] if args else ""
    if name in COMMANDS:
        # What a harvest needs is given by name, or in a config.
        settings = {"as_positional": name != "harvest", "prog": f"saelight shards {name}", "args": args[1:]}
        auto_cli(COMMANDS[name], parser_class=OneLineParser, **settings)
    else:
        auto_cli(COMMANDS, parser_class=OneLineParser, prog="saelight shards", args=args)
