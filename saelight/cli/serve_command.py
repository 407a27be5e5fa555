"""`saelight serve`: a page of all runs that follows their training. Light: no torch."""

import argparse
from typing import TYPE_CHECKING

from saelight.parsing.arguments import Parser

if TYPE_CHECKING:
    from saelight.serve.serving import Options


def run(args: list[str]) -> None:
    """Serve until Ctrl-C."""
    from saelight.serve.serving import serve

    serve(options(args))


def options(args: list[str]) -> "Options":
    """What a command line asks for."""
    parser = Parser(
        prog="saelight serve",
        description="Show runs and sweeps in a browser, as they train; with --train, train what is asked for over HTTP.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs",
        nargs="*",
        default=["runs"],
        metavar="RUNS",
        help="folders that hold runs and sweeps, or are one (default: runs)",
    )
    parser.add_argument("--port", type=_port, default=8765, metavar="N", help="default: 8765; 0 takes any that is free")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="of this machine (default: 127.0.0.1); any other wants a token",
    )
    parser.add_argument("--token", action="store_true", help="ask for a token on 127.0.0.1 too, which other users reach")
    parser.add_argument("--train", action="store_true", help="train what is asked for, in the first of RUNS")
    parser.add_argument(
        "--data", action="append", metavar="FOLDER", help="with --train: where activations may be read (default: here)"
    )
    parser.add_argument("--devices", metavar="LIST", help="with --train: as of `saelight sweep run` (default: auto)")
    given = parser.parse_args(args)
    if not given.train and (given.data or given.devices):
        parser.error(f"--{'data' if given.data else 'devices'} goes with --train: add that, or drop it")
    from saelight.serve.serving import Options

    data, devices = given.data or ["."], given.devices or "auto"
    return Options(given.runs, given.port, given.host, given.train, data, devices, given.token)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"expected a port, 0 to 65535, got {text!r}")
    return int(text)
