"""Every link of the pages leads somewhere: to a file that is there, and in it to a heading."""

import re
from collections import Counter
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

import saelight

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def inline(path: Path) -> list[list[Token]]:
    """What stands in each block of text of a page, headings among them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text())
    return [token.children or [] for token in tokens if token.type == "inline"]


def anchors(path: Path) -> set[str]:
    """The names of a page's headings, as GitHub and MyST make them."""
    tokens = MarkdownIt("commonmark").parse(path.read_text())
    titles = [
        token.children or [] for token, before in zip(tokens[1:], tokens, strict=False) if before.type == "heading_open"
    ]
    texts = ["".join(part.content for part in title if part.type in ("text", "code_inline")) for title in titles]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


def links(path: Path) -> list[str]:
    tokens = [token for block in inline(path) for token in block]
    return [
        str(token.attrs.get("href") or token.attrs.get("src")) for token in tokens if token.type in ("link_open", "image")
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert path.is_relative_to(ROOT), link
        if anchor:
            assert path.suffix == ".md", link
            assert anchor in anchors(path), link


def test_every_page_is_in_the_navigation_once():
    index = (DOCS / "index.md").read_text()
    listed = [line for tree in re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL) for line in tree.splitlines()]
    named = [line for line in listed if line and not line.startswith((":", "("))]
    assert listed.count("(others)") == 1  # where conf.py puts the pages that are not named
    assert max(Counter(named).values()) == 1
    pages = [path for path in DOCS.rglob("*") if path.suffix in (".md", ".rst", ".ipynb")]
    assert set(named) <= {path.relative_to(DOCS).with_suffix("").as_posix() for path in pages}


def test_the_reference_has_every_public_name():
    text = (DOCS / "api.rst").read_text()
    documented = set(re.findall(r"^\.\. auto\w+:: saelight\.(\w+)", text, re.MULTILINE))
    assert set(dir(saelight)) - documented <= {"saes"}  # a room all of whose names are saelight's too
