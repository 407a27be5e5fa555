"""What is said about the package: in CITATION.cff, CHANGELOG.md, and the README's badges and pictures."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_one_of_cff_1_2_0():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"authors", "cff-version", "message", "title"} <= citation.keys()  # the schema's required ones
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] in ("software", "dataset")
    assert [set(author) for author in citation["authors"]] == [{"name"}]  # an entity, which needs a name
    assert citation["authors"] == PROJECT["authors"]
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert all(isinstance(value, str) for key, value in citation.items() if key not in ("authors", "keywords"))


def test_the_changelog_begins_with_this_version():
    versions = re.findall(
        r"^## \[(.+)\] - (Unreleased|\d{4}-\d{2}-\d{2})$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert versions[0][0] == PROJECT["version"]
    released = [date for _, date in versions if date != "Unreleased"]
    assert released == sorted(released, reverse=True)


def test_the_badges_are_true():
    readme = (ROOT / "README.md").read_text()
    badges = dict(re.findall(r"\[!\[([^\]]*)\]\([^)]*/badge/([^)]*)\)\]", readme))
    least = PROJECT["requires-python"].removeprefix(">=")
    (torch,) = (name.removeprefix("torch>=") for name in PROJECT["dependencies"] if name.startswith("torch>="))
    assert badges == {
        f"Python {least} or newer": f"Python-%E2%89%A5_{least}-3776ab",
        f"PyTorch {torch} or newer": f"PyTorch-%E2%89%A5_{torch}-ee4c2c",
        "Licence: MIT": "licence-MIT-2c7a2c",
    }


def test_install_from_an_index_is_promised_for_later_only():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    said = [line for page in pages for line in page.read_text().splitlines() if re.search(r"pip install '?saelight", line)]
    assert said
    assert [line for line in said if "nce released" not in line] == []
