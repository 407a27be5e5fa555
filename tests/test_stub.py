"""What editors and type checkers believe of `saelight` (its stub) is what it has."""

import ast
import subprocess
import sys
from pathlib import Path

import saelight

ROOT = Path(__file__).parents[1]


def test_the_checker_knows_every_name_and_no_other():
    """A misspelt variant is an error; of the names there are, each is known."""
    program = "\n".join(
        ["import saelight", "saelight.Topkk", "saelight.sweep.run", *(f"saelight.{name}" for name in dir(saelight))]
    )
    checker = subprocess.run([sys.executable, "-m", "mypy", "-c", program], cwd=ROOT, capture_output=True, text=True)
    errors = [line for line in checker.stdout.splitlines() if line.startswith("<string>")]
    assert errors == ['<string>:2: error: Module has no attribute "Topkk"  [attr-defined]'], checker


def test_the_stub_has_what_there_is():
    imports = ast.parse((ROOT / "saelight/__init__.pyi").read_text()).body
    named = {alias.asname for node in imports for alias in node.names if alias.name != "*"}
    variants = {name for name in vars(saelight.saes) if name[0].isupper()}
    assert named | variants == set(dir(saelight))
    assert {"TopK", "Trainer", "load", "sweep"} <= set(dir(saelight))
