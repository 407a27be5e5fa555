"""Every room says in a few lines what lives in it, what it may import, and where to add the usual thing."""

import pytest

from tests.support.import_graph import PACKAGE

ROOMS = sorted(path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.glob("*/**/__init__.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_a_short_readme(room):
    lines = (PACKAGE / room / "README.md").read_text().splitlines()
    assert lines[0] == f"# {room}"
    assert "May import" in "\n".join(lines)
    assert 5 < len(lines) <= 15
