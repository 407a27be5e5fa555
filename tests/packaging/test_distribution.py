"""Wheel and sdist: what is in them, and that a clean environment installs and runs each."""

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.commands import CONFIG, changed, write

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LEFT_BEHIND = ("shards/x/metadata.json", "runs/y/results.jsonl", "build/lib/saelight/stale.py", "dist/old.whl")
"""What lies about in a folder that is worked in."""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is made of it, as `make dist` makes them, from a folder that was worked in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("saelight", "configs", "sweeps", "docs", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, source)
    for name in LEFT_BEHIND:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True, env={"PYTHONPATH": ":".join(sys.path)})
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def test_the_wheel_has_the_package_and_all_that_it_reads(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = [path for path in (ROOT / "saelight").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    shipped = {path.relative_to(ROOT).as_posix() for path in files if path.name != "README.md"}
    assert {"saelight/py.typed", "saelight/__init__.pyi", "saelight/report/assets/report.html"} <= shipped
    assert names == shipped


def test_the_sdist_has_what_a_user_runs_and_no_more(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "configs/quickstart.yaml",
        "sweeps/quick.yaml",
    } <= names
    tops = {name.partition("/")[0] for name in names if "/" in name}
    assert tops == {"saelight", "saelight.egg-info", "configs", "sweeps"}
    assert not names & set(LEFT_BEHIND)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A fresh environment with links to the packages of this one, but saelight: torch takes minutes to install."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if "saelight" not in package.name and package.suffix != ".pth":
            (site / package.name).symlink_to(package)
    return folder / "bin"


def run(*command):
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def extras():
    """Those that the tests' environment has."""
    (together,) = (name for name in PROJECT["optional-dependencies"]["test"] if name.startswith("saelight["))
    return re.search(r"\[.*\]", together)[0]


def test_each_installs_in_a_clean_environment_and_trains(built, clean, tmp_path):
    sdist, wheel = built
    config = write(changed(CONFIG, trainer__max_steps=1, trainer__name="one"))
    # No index: what it needs beside torch is there, or its metadata are wrong.
    for what in (f"{wheel}{extras()}", sdist):
        pip = [clean / "python", "-m", "pip", "install", "--no-index", "--no-build-isolation"]
        again = ["--force-reinstall", "--no-deps"] if what is sdist else []
        run(*pip, *again, what)
        assert run(clean / "saelight", "--version") == f"saelight {PROJECT['version']}\n"
        where = run(clean / "python", "-c", "import saelight; print(saelight.__file__)")
        assert Path(where).is_relative_to(clean.parent / "lib")
    run(clean / "saelight", "fit", "--config", config)
    run(clean / "saelight", "report", "runs/one")
    assert "plotly" in (tmp_path / "runs/one/report.html").read_text()
