"""The page: one HTML file that holds its data, its style and all that draws it, and is forbidden to fetch anything."""

import base64
import hashlib
import html
import json
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.files import check_path, write_text
from saelight.report.document import document
from saelight.report.gathered import gather

DRAWING = "plotly-basic.min.js"
SCRIPTS = ("look.js", "charts.js", "table.js", "latents.js", "details.js", "main.js")
"""In this order; each knows those before it."""


def write_report(folders: Sequence[str | Path], out: str | Path) -> str:
    """Write the report of a run's or a sweep's folder, or of two that are compared, to `out`; what to say of it.

    Raises:
        UserError: A folder is neither, or the place is none for a page.
    """
    target = Path(out)
    for path in (out, *folders):
        check_path(path, "the path")
    if target.is_dir():
        raise UserError(f"{target} is a folder: name the page's file, as --out {target / 'report.html'}")
    if target.suffix not in (".html", ".htm"):
        raise UserError(f"{target} does not end in .html, so it may be something else: name the page's file, as report.html")
    paths = [Path(folder) for folder in folders]
    if len(set(map(os.path.realpath, paths))) < len(paths):
        raise UserError(f"{paths[0]} is compared with itself: name another folder after --compare, or drop it")
    sources = [gather(path) for path in paths]
    write_text(target, page(document(sources)))
    saes, problems = (sum(map(len, parts)) for parts in ([s.rows for s in sources], [s.problems for s in sources]))
    missing = "; something is missing or damaged, and the page says what" if problems else ""
    return f"{target}: {saes} SAE{'s' * (saes != 1)}{missing}"


def page(data: dict[str, Any]) -> str:
    """The whole file, of what `document` gives."""
    drawing = asset(DRAWING)
    own = "\n".join(map(asset, SCRIPTS))
    policy = (
        f"default-src 'none'; script-src {_digest(drawing)} {_digest(own)}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    return filled(data, policy, f"<script>{drawing}</script>\n<script>{own}</script>", asset("report.css"))


def filled(data: dict[str, Any], policy: str, scripts: str, style: str) -> str:
    """The page's HTML around its data: its Content-Security-Policy, the elements of its scripts, and its style."""
    fills = {
        "{{policy}}": policy,
        "{{title}}": html.escape(data["title"].encode(errors="replace").decode()),
        "{{style}}": style,
        "{{data}}": embedded(data),
        "{{scripts}}": scripts,
    }
    parts = asset("report.html").split("{{")
    pieces = [parts[0]]
    for part in parts[1:]:
        key, end, rest = part.partition("}}")
        pieces += [fills["{{" + key + end], rest]
    return "".join(pieces)


def embedded(data: dict[str, Any]) -> str:
    """JSON that no HTML parser takes for anything but text: what could end the block, or begin another one, is escaped."""
    plain = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def asset(name: str) -> str:
    """A file of what the browser runs."""
    return (files("saelight.report") / "assets" / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """What a Content-Security-Policy allows a script by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
