"""Which saelight this is."""

from importlib import metadata


def version() -> str:
    """The installed version; of a copy that is on the path without being installed, that it is one."""
    try:
        return metadata.version("saelight")
    except metadata.PackageNotFoundError:
        return "not installed"
