"""What is shipped and shown runs: every config, every command and Python block of the README, every command of docs/."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from saelight.cli import sweep_commands
from tests.support.commands import saelight_

ROOT = Path(__file__).parents[1]


SMALLER = [
    ("rows: 300000", "rows: 4000"),
    ("max_tokens: 700000", "max_tokens: 30000"),
    ("max_samples: 50000", "max_samples: 5000"),
    ("d_sae: 8192", "d_sae: 64"),
    ("expansion: 4", "expansion: 1"),
    ("expansion: 8", "expansion: 1"),
    ("max_epochs: 20", "max_epochs: 2"),
    ("max_epochs: 30", "max_epochs: 1"),
    ("expansion: {value: 4}", "expansion: {value: 1}"),
    ("max_epochs: {value: 12}", "max_epochs: {value: 1}"),
    ("run_cap: 40", "run_cap: 4"),
    ("8192, 16384, 32768", "64, 128, 256"),
    ("8192, 16384", "64, 128"),
    ("value: 32768", "value: 256"),
]
CONFIGS = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml"))
SWEEPS = sorted(path.relative_to(ROOT) for path in (ROOT / "sweeps").iterdir() if path.is_file())


@pytest.fixture
def shipped(tmp_path):
    """The shipped configs and sweeps, at a size for tests."""
    for path in CONFIGS + SWEEPS:
        text = (ROOT / path).read_text()
        for large, small in SMALLER:
            text = text.replace(large, small)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)


def readme_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def shown_commands() -> list[str]:
    """What README.md and docs/ tell people to type."""
    lines = [line for block in readme_blocks("bash") for line in block.strip().splitlines()]
    table = re.findall(r"^\| `([^`]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    pages = "\n".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    docs = re.findall(r"^ *(saelight .*)$", pages, re.MULTILINE)
    return list(dict.fromkeys(lines + table + docs))


def test_every_config_and_command_shown_runs(shipped, capsys):
    ran, configs = [], set()
    for command in shown_commands():
        words = shlex.split(command)
        configs |= {word for word in words if word.startswith("configs/")}
        if "slurm" in words:
            # tests/slurm runs these; here is no Slurm.
            assert sweep_commands._parser().parse_args(words[2:]).launcher == "slurm"
        elif words[0] == "saelight":
            assert saelight_(*words[1:]) == 0, (command, capsys.readouterr().err)
            ran.append(command)
    assert len(ran) >= 12
    assert configs == set(map(str, CONFIGS))


def test_every_python_block_of_the_readme_runs():
    for block in readme_blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert Path("runs/python/saes/topk").is_dir()


def test_the_sweeps_page_in_python_and_in_a_shell(shipped):
    page = (ROOT / "docs" / "sweeps.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "sweeps.md", "exec"), {})
    assert not Path("runs").exists()
    (loop,) = re.findall(r"^for config .*$", page, re.MULTILINE)
    assert saelight_("shards", "harvest", "--config", "configs/harvest-minilm.yaml") == 0
    assert saelight_("sweep", "expand", "sweeps/conditional.yaml", "--max-saes", "3") == 0
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(["bash", "-ec", loop], check=True, env=os.environ | {"PATH": path})
    assert len(list(Path("runs").glob("group-00*/saes/*"))) == 6


def test_the_readmes_other_commands_are_what_make_and_ci_run():
    others = [command for command in shown_commands() if not command.startswith("saelight ")]
    makefile = (ROOT / "Makefile").read_text()
    for command in others:
        program, *words = command.split()
        if program == "make":
            plan = subprocess.run(["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout
            assert "saelight" in plan or "pytest" in plan
        elif program == "pip":
            assert words[:2] == ["install", "-e"]
            assert words[2].strip("'") in makefile.replace("--editable", "-e")
        else:
            assert command == "tensorboard --logdir runs"
            assert (Path(sys.executable).parent / "tensorboard").exists()


def test_help_and_version_answer_without_torch():
    code = "import sys; from saelight.cli.main import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    for flag in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code, flag], capture_output=True, text=True, check=True)
        assert "saelight" in done.stdout
