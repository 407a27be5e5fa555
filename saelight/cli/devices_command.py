"""`saelight devices`."""

from saelight.parsing.arguments import Parser


def run(args: list[str]) -> None:
    """Print the devices of this machine."""
    Parser(
        prog="saelight devices",
        description="The devices of this machine: CUDA with name and memory, MPS, CPU.",
        allow_abbrev=False,
    ).parse_args(args)
    from saelight.sweep.execute.devices import find, listing

    print(listing(find()))
