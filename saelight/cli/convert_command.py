"""`saelight convert`. Nothing heavy is imported before its arguments are known to be right."""

from saelight.parsing.arguments import Parser

WRITTEN = ("saelight", "sae_lens", "dictionary_learning", "sparsify", "circuit_tracer", "openmoss")
READ = (*WRITTEN, "gemma_scope", "llama_scope", "saev", "qwen_scope", "goodfire")


def run(args: list[str]) -> None:
    """Convert, and print what was made."""
    parser = Parser(
        prog="saelight convert",
        description="Convert an SAE, or all that a run or a sweep holds, into another library's format, and back.",
        epilog="What maps to what: docs/convert.md.",
        allow_abbrev=False,
    )
    parser.add_argument("source", help="an SAE's folder or file, or a folder that holds some (a run, a sweep)")
    parser.add_argument("out", help="the folder to make; of several SAEs, one folder each inside it")
    parser.add_argument("--to", required=True, choices=WRITTEN, help="the format to write")
    parser.add_argument("--from", dest="format", choices=READ, help="the format to read; default: found out")
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="NAME", help="SAEs of the source that are not converted"
    )
    given = parser.parse_args(args)
    from saelight.convert.writing import convert

    made = convert(given.source, given.out, to=given.to, format=given.format, leave_out=given.leave_out)
    n = len(made.folders)
    print(f"{given.out}: {f'{n} SAEs' if n > 1 else 'one SAE'} in {given.to}'s format")
    for note in made.notes:
        print(note)
