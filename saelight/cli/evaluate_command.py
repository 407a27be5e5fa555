"""`saelight evaluate`. Nothing heavy is imported before its arguments are known to be right."""

from typing import Any

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
    parser.add_argument(
        "--text", nargs="+", help="What the model reads, as harvests take it: file patterns, folders, hf://."
    )
    parser.add_argument("--exclude", nargs="+", help="Patterns of files to leave out, matched against the whole path.")
    parser.add_function_arguments(evaluate, skip={"saes", "text", "exclude"})
    parser.add_argument("--suite", choices=SUITES, help="Run another library's suite instead; it has its own text.")
    parser.add_argument("--suite_evaluations", nargs="+", default=["core"], help="Which of its evaluations.")
    parser.add_argument("--suite_out", default="sae_bench", help="Folder for its results.")
    given = parser.parse_args(args).as_dict()
    given["saes"] = given.pop("paths") or given["saes"]
    suite, evaluations, out = (given.pop(key) for key in ("suite", "suite_evaluations", "suite_out"))
    del given["config"]
    if suite:
        _run_suite(given, evaluations, out)
        return
    from saelight.evals.evaluation_table import chance, words

    rows = evaluate(**given)
    passes: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        passes.setdefault(tuple(str(row[key]) for key in ("model", "hook", "target_hook", "context")), []).append(row)
    print("\n\n".join(map(words, passes.values())))
    if remark := chance(rows):
        print(remark)


def _run_suite(given: dict[str, Any], evaluations: list[str], out: str) -> None:
    from saelight.evals.bench_suite import sae_bench

    device = "cpu" if given["device"] == "auto" else given["device"]
    shared = {"batch_size": given["batch_size"], "dtype": given["model_dtype"], "device": device}
    for path in sae_bench(given["saes"], given["model"], evaluations, out, **shared):
        print(path)
