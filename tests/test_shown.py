"""What is shipped and shown runs: every config, every command and Python block of the README, every command of docs/."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from saelight.cli import serve_command, sweep_commands
from tests.support import language_model
from tests.support.commands import saelight_
from tests.support.hub_server import standing_in

ROOT = Path(__file__).parents[1]


SMALLER = [
    ("    rows: 300000", "    rows: 4000\n    val_rows: 1000"),
    ("  rows: 300000", "  rows: 4000\n  val_rows: 1000"),
    ("rows: 500000", "rows: 2000\n    val_rows: 200\n    first_rows: 1000\n    buffer: 1024\n    model_batch_size: 1"),
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


def ship(folder: Path) -> None:
    """Write the shipped configs and sweeps into `folder`, at a size for tests."""
    for path in CONFIGS + SWEEPS:
        text = (ROOT / path).read_text()
        for large, small in SMALLER:
            text = text.replace(large, small)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def readme_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def shown_commands() -> list[str]:
    """What README.md and docs/ tell people to type."""
    lines = [line for block in readme_blocks("bash") for line in block.strip().splitlines()]
    table = re.findall(r"^\| `([^`]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    pages = "\n".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    docs = re.findall(r"^ *(saelight .*)$", pages, re.MULTILINE)
    return list(dict.fromkeys(lines + table + docs))


COMMANDS = [command for command in shown_commands() if command.startswith("saelight ")]
SERVING = [command for command in COMMANDS if command.startswith("saelight serve")]
FOR_SLURM = [command for command in COMMANDS if "--launcher slurm" in command]
HARVEST = "saelight shards harvest --config configs/harvest-minilm.yaml"
NEEDS = {
    r"shards/minilm-layer3|configs/minilm\.yaml|sweeps/front\.yaml": HARVEST,
    r"(validate|test|predict) --config configs/quickstart|--ckpt_path last": "saelight fit --config configs/quickstart.yaml",
    r"convert runs/quickstart": "saelight fit --config configs/quickstart.yaml",
    r"convert topk-4-for": "saelight convert runs/quickstart/saes/topk-4 topk-4-for-sae-lens --to sae_lens",
    r"(report|collect|push) runs/quickstart": "saelight fit --config configs/quickstart.yaml",
    r"collect runs/minilm": "saelight fit --config configs/minilm.yaml",
    r"latents show runs/quickstart": "saelight latents collect runs/quickstart",
    r"predict --config configs/minilm": "saelight fit --config configs/minilm.yaml",
    r"latents (show|export) runs/minilm": "saelight latents collect runs/minilm --data shards/minilm-layer3 --tokens 10000",
    r"hf://user/quickstart-saes": "saelight push runs/quickstart user/quickstart-saes",
    r"runs/quick( --out .*)?$|sweeps/quick\.yaml .*--resume": "saelight sweep run sweeps/quick.yaml --limit 3",
    r"runs/front$": "saelight sweep run sweeps/front.yaml --devices cpu,cpu",
}
"""Commands that work on what another one has made, and that one."""
EVALUATE = re.compile(r"saelight evaluate runs/smollm2")
"""Commands that work on SAEs of a language model, which is laid out for them."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Where they share, and load from."""
    with standing_in(tmp_path_factory.mktemp("cache")) as hub:
        yield hub


@pytest.fixture(scope="module")
def made(tmp_path_factory, hub):
    """The folder that a command leaves: each command is run once, in a copy of the folder of the one that it needs."""
    folders: dict[str, Path] = {}

    def make(command: str) -> Path:
        if command not in folders:
            folder = tmp_path_factory.mktemp("made")
            ship(folder)
            if EVALUATE.match(command):
                language_model.lay_out(folder, "smollm2", "smollm2")
            for needs, needed in NEEDS.items():
                if command != needed and re.search(needs, command):
                    shutil.copytree(make(needed), folder, dirs_exist_ok=True)
            with contextlib.chdir(folder):
                assert saelight_(*shlex.split(command)[1:]) == 0
            folders[command] = folder
        return folders[command]

    return make


LONG = re.compile("(sweeps|runs)/front|sweeps/bayes|fit --config configs/(optimized|fast)")
RUN_HERE = [
    pytest.param(command, marks=[pytest.mark.slow] * bool(LONG.search(command)))
    for command in COMMANDS
    if command not in (*FOR_SLURM, *SERVING)
]


@pytest.mark.parametrize("command", RUN_HERE, ids=str)
def test_every_command_shown_runs(command, made):
    made(command)


@pytest.mark.parametrize("command", FOR_SLURM, ids=str)
def test_every_command_for_slurm_parses(command):
    # tests/slurm runs these; here is no Slurm.
    assert sweep_commands._parser().parse_args(shlex.split(command)[2:]).launcher == "slurm"


def test_every_command_that_serves_parses():
    # tests/serve runs servers; these would not end.
    assert len(SERVING) >= 4
    for command in SERVING:
        serve_command.options(shlex.split(command)[2:])


def test_every_config_is_shown():
    assert len(COMMANDS) >= 12
    shown = {word for command in COMMANDS for word in command.split() if word.startswith("configs/")}
    assert shown == set(map(str, CONFIGS))


def test_every_python_block_of_the_readme_runs():
    for block in readme_blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert Path("runs/python/saes/topk").is_dir()


def test_the_tutorial_in_python(made):
    page = (ROOT / "docs" / "tutorial.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    with contextlib.chdir(made("saelight fit --config configs/quickstart.yaml")):
        exec(compile(block, "tutorial.md", "exec"), {})


@pytest.mark.slow
def test_the_sweeps_page_in_python_and_in_a_shell(made, tmp_path):
    ship(tmp_path)
    page = (ROOT / "docs" / "sweeps.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "sweeps.md", "exec"), {})
    assert not Path("runs").exists()
    shutil.copytree(made(HARVEST), tmp_path, dirs_exist_ok=True)
    (loop,) = re.findall(r"^for config .*$", page, re.MULTILINE)
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


WITHOUT_TORCH = """
import sys
from saelight.cli.main import main

for words in (["--help"], ["--version"], ["fit", "--help"], ["predict", "-h"]):
    main(words)
assert "torch" not in sys.modules
"""


def test_help_and_version_answer_without_torch():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True)
    assert "usage: saelight" in done.stdout.lower()
    assert re.search(r"^saelight \d+\.", done.stdout, re.MULTILINE)
