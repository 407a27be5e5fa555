"""`saelight evaluate`. Nothing heavy is imported before its arguments are known to be right."""

from jsonargparse import ActionConfigFile

from saelight.parsing.messages import OneLineParser

SUITES = ("sae_bench",)


def run(args: list[str]) -> None:
    """Evaluate, and print the table."""
    from saelight.evals.evaluate_saes import evaluate

    parser = OneLineParser(
        prog="saelight evaluate",
        description="Judge trained SAEs on their language model: what it loses when they stand in for its activations.",
        epilog="What is measured, and how: docs/evaluate.md.",
    )
    parser.add_argument("--config", action=ActionConfigFile, help="A YAML config of the settings below.")
    parser.add_argument("paths", nargs="*", metavar="SAE", help="Folders of SAEs of any known format, of runs, of sweeps.")
    parser.add_argument("--saes", nargs="+", default=[], help="The same, as a config says it.")
    parser.add_argument("--text", nargs="+", help="Text files: glob patterns, as harvests take them.")
    parser.add_argument("--exclude", nargs="+", help="Patterns of files to leave out, matched against the whole path.")
    parser.add_argument("--suite", choices=SUITES, help="Hand the SAEs to another library's suite instead.")
    parser.add_function_arguments(evaluate, skip={"saes", "text", "exclude"})
    given = parser.parse_args(args).as_dict()
    given["saes"] = given.pop("paths") or given["saes"]
    del given["config"]
    if suite := given.pop("suite"):
        raise NotImplementedError(suite)
    from saelight.evals.evaluation_table import chance, words

    rows = evaluate(**given)
    passes: dict[tuple[str, ...], list[dict]] = {}
    for row in rows:
        passes.setdefault(tuple(str(row[key]) for key in ("model", "hook", "target_hook", "context")), []).append(row)
    print("\n\n".join(map(words, passes.values())))
    if remark := chance(rows):
        print(remark)
