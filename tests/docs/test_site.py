"""The built site: without a warning, every page reachable, and nothing in it asks another machine for anything."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="make docs installs it")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAMED_IN_SCRIPTS = {"www.w3.org", "snowballstem.org", "developer.mozilla.org"}
"""A namespace of SVG, and two hosts in comments: no requests."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built by the command of `make docs`."""
    (command,) = re.findall(r"-m (sphinx .*) docs build/docs", (ROOT / "Makefile").read_text())
    out = tmp_path_factory.mktemp("site")
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-m", *command.split(), "docs", str(out)], cwd=ROOT, env=env, check=True)
    return out


class Page(HTMLParser):
    """What a page loads by itself, and where its links lead."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.links, self.ids = [], [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids.add(values.get("id"))
        if tag == "a":
            self.links.append(values.get("href") or "")
        elif tag in ("script", "img", "link", "iframe", "source", "form", "object", "embed"):
            self.loads += [values[key] for key in ("src", "srcset", "href", "action", "data") if values.get(key)]


def test_a_page_loads_only_what_lies_beside_it(site):
    pages = sorted(site.rglob("*.html"))
    assert {"index.html", "api.html", "tutorial.html", "search.html"} <= {page.name for page in pages}
    for page in pages:
        for load in Page(page).loads:
            assert not re.match(r"(https?:)?//", load), f"{page}: {load}"
            if not load.startswith(("data:", "#")):
                assert (page.parent / load.partition("?")[0].partition("#")[0]).exists(), f"{page}: {load}"


def test_no_style_and_no_script_asks_for_more(site):
    for style in site.rglob("*.css"):
        text = style.read_text()
        loads = re.findall(r"url\(\s*['\"]?([^'\")]{1,60})", text) + re.findall(r"@import[^;]*", text)
        assert [load for load in loads if not load.startswith("data:") and not (style.parent / load).exists()] == [], style
    for script in site.rglob("*.js"):
        assert set(re.findall(r"//([\w-]+(?:\.[\w-]+)+)/", script.read_text())) <= NAMED_IN_SCRIPTS, script


def test_every_link_within_the_site_leads_somewhere(site):
    pages = {page: Page(page) for page in site.rglob("*.html")}
    for page, read in pages.items():
        for link in read.links:
            target, _, anchor = link.partition("#")
            if re.match(r"https?://|mailto:", link) or not link:
                continue
            to = (page.parent / target).resolve() if target else page
            assert to.exists(), f"{page}: {link}"
            if anchor and to in pages:
                assert anchor in pages[to].ids, f"{page}: {link}"


def test_the_reference_says_what_a_field_means(site):
    text = re.sub(r"<[^>]+>", "", (site / "api.html").read_text())
    for words in ("Latents kept per token: the L0.", "Peak learning rate.", "The objective: reconstruction", "Raises"):
        assert words in text
    assert "Annotated" not in text
    assert "Range(" not in text
