"""The documentation as a site: `make docs`. Its pages are Markdown as on GitHub, its reference the docstrings."""

import dataclasses
import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext import napoleon

from saelight import version as installed

project = "saelight"
author = "The saelight developers"
copyright = "2026, the saelight developers (MIT licence)"
release = installed.version()

extensions = ["myst_nb", "sphinx.ext.autodoc"]
nb_execution_mode = "off"  # notebooks are stored with what they put out; a test runs them
myst_heading_anchors = 4
default_role = "code"  # docstrings are written for editors, with Markdown's single backticks

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"

html_theme = "furo"
html_title = "saelight"
html_show_sphinx = False
html_copy_source = False

RANGE = re.compile(r"Annotated\[((?:[^\[\]]|\[[^\]]*\])*?), [\w~.]*(?:Range|Duration)\([^)]*\)\]")


def plain(types: str) -> str:
    """Types without the ranges that stand with them, which `--help` shows in words."""
    return RANGE.sub(r"\1", types).replace("~types.", "").replace("~typing.", "")


def list_the_others(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put every page that index.md does not name where it says `(others)`: a new page needs no line there."""
    if docname == "index":
        named = set(source[0].splitlines())
        others = [name for name in sorted(app.env.found_docs) if name != "index" and name not in named]
        source[0] = source[0].replace("(others)", "\n".join(others))


def google_sections(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Args, Raises and Returns of functions and classes. Of a field, a colon is only a colon; |x| is a size."""
    lines[:] = [re.sub(r"\|(?=\w)", r"\\|", line) for line in lines]
    if what not in ("attribute", "property"):
        lines[:] = napoleon.GoogleDocstring(lines, napoleon.Config(), app, what, name, obj, options).lines()


def short_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Of a dataclass none: its fields follow, each with what it means."""
    if what == "class" and dataclasses.is_dataclass(obj):
        return "", None
    return (plain(signature), plain(returns or "")) if signature else None


def plain_field_types(app: Sphinx, domain: str, objtype: str, content: addnodes.desc_content) -> None:
    if objtype == "attribute":
        for annotation in content.parent.findall(addnodes.desc_annotation):
            annotation[:] = [nodes.Text(plain(annotation.astext()))]


def setup(app: Sphinx) -> None:
    app.connect("source-read", list_the_others)
    app.connect("autodoc-process-docstring", google_sections)
    app.connect("autodoc-process-signature", short_signature)
    app.connect("object-description-transform", plain_field_types)
