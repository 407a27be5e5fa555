"""`saelight report`: one page of a run or a sweep. Light: no torch."""

from pathlib import Path

from saelight.parsing.arguments import Parser


def run(args: list[str]) -> None:
    """Write the page and say where it is."""
    parser = Parser(
        prog="saelight report",
        description="Write one page of a run's or a sweep's SAEs: it opens in any browser, without a network.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="RUN|SWEEP", help="the folder of a run or of a sweep, also while it is at work")
    parser.add_argument("--compare", metavar="RUN|SWEEP", help="another one, to see beside it")
    parser.add_argument("--out", metavar="FILE", help="the page's file (default: report.html in the folder)")
    given = parser.parse_args(args)
    from saelight.report.page import write_report

    folders = [given.folder] if given.compare is None else [given.folder, given.compare]
    print(write_report(folders, given.out or Path(given.folder) / "report.html"))
