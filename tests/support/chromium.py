"""Debian's Chromium, driven by Playwright: what tests of pages share. Imported as a plugin by `tests/conftest.py`."""

import importlib
import os
import shutil
from pathlib import Path

import pytest

SIZES = {400: 800, 1600: 900}
"""Heights of windows by their widths: a phone's and a desk's."""


@pytest.fixture(scope="module")
def api():
    # Here, as `make test`, which collects this file too, has no Playwright.
    return importlib.import_module("playwright.sync_api")


@pytest.fixture(scope="module")
def chromium(api):
    path = shutil.which("chromium")
    assert path, "apt-get install -y --no-install-recommends chromium"
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def keep_picture(page, name: str, **more) -> None:
    """Keep what the page shows as `name`.png in the folder SAELIGHT_SCREENSHOTS, if one is given."""
    if folder := os.environ.get("SAELIGHT_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", **more)
