"""`saelight shards harvest | info | verify`. Nothing heavy is imported before a command runs."""

from saelight.data.harvest.harvester import harvest


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
