"""`saelight push`. Nothing heavy is imported before its arguments are known to be right."""

from saelight.cli.convert_command import WRITTEN
from saelight.parsing.arguments import Parser


def run(args: list[str]) -> None:
    """Share, and print where."""
    parser = Parser(
        prog="saelight push",
        description="Share an SAE, or all of a run or a sweep, on the Hugging Face hub, with a card that describes them.",
        epilog="Whose account: `hf auth login`, or HF_TOKEN; which hub: HF_ENDPOINT. More: docs/share.md.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", help="an SAE's folder or file, a run, a sweep")
    parser.add_argument("repo", help="user/repo, made where it is not there; user/repo/path for a folder in it")
    parser.add_argument("--as", dest="to", choices=WRITTEN, help="the format to share them in; default: as they are")
    parser.add_argument("--public", action="store_true", help="let everybody see them; default: you alone")
    parser.add_argument("--leave-out", nargs="+", default=[], metavar="NAME", help="SAEs of the folder that are not shared")
    parser.add_argument("--new-card", action="store_true", help="replace a README.md that somebody has changed there")
    given = parser.parse_args(args)
    from saelight.hub.pushing import push

    made = push(given.folder, given.repo, given.to, public=given.public, leave_out=given.leave_out, new_card=given.new_card)
    n = len(made.saes)
    seen = "private" if made.private else "public"
    done = f"{f'{n} SAEs' if n > 1 else 'one SAE'}, {seen}" if made.is_new else "all of it is there already"
    print(f"{made.url}: {done}")
    print(f"load {'them, e.g.,' if n > 1 else 'it'} by saelight.load({made.saes[0]!r})")
    for note in made.notes:
        print(note)
