"""Names that become folders: whatever else a name could be, it is one folder inside another."""

import pytest

from saelight.errors import UserError
from saelight.files import check_name

REFUSED = {
    "": "cannot be a folder's",
    ".": "cannot be a folder's",
    "..": "cannot be a folder's",
    ".hidden": "cannot be a folder's",
    "../../esc": "it is a name, no path",
    "/tmp/esc": "it is a name, no path",
    "a/b": "it is a name, no path",
    "a\\b": "it is a name, no path",
    "a\0b": "cannot be a folder's",
    "a\nb": "cannot be a folder's",
    " a": "spaces inside",
    "a ": "spaces inside",
    "\udc80": "cannot be a folder's",
    "x" * 201: "has 201 bytes: give one of at most 200",
    "é" * 150: "has 300 bytes: give one of at most 200",
    "a.partial": "is as what is half written",
    "a.lock": "is as what is half written",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_be_no_folder_is_refused_in_one_short_line(name):
    with pytest.raises(UserError) as raised:
        check_name(name, "the sweep's name")
    line = str(raised.value)
    assert line.startswith("the sweep's name ")
    assert REFUSED[name] in line
    assert "\n" not in line
    assert len(line) < 200


@pytest.mark.parametrize("name", ["a", "16", "topk-x16-lr0.001", "Mein Lauf", "été", "-x", "a.b", "x" * 200])
def test_ordinary_names_pass(name):
    check_name(name, "the name")
