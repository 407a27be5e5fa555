"""The versions compared with are the ones that docs/conformance.md names, in every environment."""

import importlib.metadata
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LIBRARIES = ["sae-lens", "dictionary-learning", "eai-sparsify"]
PINNED = dict(re.findall(r"^([\w-]+)==(\S+)$", Path(__file__).with_name("requirements.txt").read_text(), re.MULTILINE))


def test_the_page_names_the_pinned_versions():
    page = (ROOT / "docs" / "conformance.md").read_text()
    for library in LIBRARIES:
        assert f"`{library}` {PINNED[library]} |" in page


def test_no_pin_contradicts_the_tests_own_environment():
    lines = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    ours = dict(line.split("==") for line in lines if "==" in line)
    pinned = {name.lower().replace("_", "-"): version for name, version in PINNED.items()}
    assert {name: version for name, version in pinned.items() if ours.get(name, version) != version} == {}


@pytest.mark.skipif(os.environ.get("SAELIGHT_PEERS") != "required", reason="run `make conformance-peers`")
def test_the_pinned_versions_are_installed():
    assert {name: importlib.metadata.version(name) for name in PINNED} == PINNED
