"""The report's page over folders that change: the same elements and scripts, and those that follow the server."""

import html
from importlib.resources import files
from typing import Any

from saelight.report.page import DRAWING, SCRIPTS, asset, filled

OWN = ("live.js", "groups.js", "trying.js")
"""After the first of the report's, which tells them what the page knows."""
_KINDS = {".js": "text/javascript", ".css": "text/css"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def live_page(data: dict[str, Any]) -> str:
    """The page of a run or a sweep, or of two."""
    first, *others = SCRIPTS
    names = [DRAWING, first, *OWN, *others]
    scripts = "\n".join(f'<script src="/assets/{name}"></script>' for name in names)
    # What may frame a page, only a header can say.
    return filled(data, POLICY.replace("; frame-ancestors 'none'", ""), scripts, asset("report.css") + own_asset("live.css"))


def home_page(title: str) -> str:
    """The page that lists the folders."""
    text = own_asset("home.html")
    return text.replace("{{style}}", asset("report.css") + own_asset("live.css")).replace("{{title}}", html.escape(title))


def served_asset(name: str) -> tuple[str, str] | None:
    """The text and the type of a script; None of what is none."""
    if name in (DRAWING, *SCRIPTS):
        return asset(name), _KINDS[".js"]
    if name in (*OWN, "home.js"):
        return own_asset(name), _KINDS[".js"]
    return None


def own_asset(name: str) -> str:
    """A file of the live page's own."""
    return (files("saelight.serve") / "assets" / name).read_text(encoding="utf-8")
