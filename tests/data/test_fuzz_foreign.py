"""Seeded damage to every layout: what is read stays readable, and all else is one line."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from saelight.data.foreign.checking import check
from saelight.data.foreign.converting import convert
from saelight.data.foreign.opening import open_rows
from saelight.errors import UserError
from tests.data.foreign_files import LAYOUTS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_waits")]
TRIES = 60


def damage(file: Path, rng: np.random.Generator) -> str:
    """Damage a file in one of the ways that disks and people know; how, in words."""
    raw = bytearray(file.read_bytes())
    # Headers and lists are at the beginning and the end, and that is where damage is to be found out.
    at = int(
        rng.choice(
            [rng.integers(min(len(raw), 300)), rng.integers(len(raw)), len(raw) - 1 - rng.integers(min(len(raw), 300))]
        )
    )
    match rng.integers(5):
        case 0:
            raw[at] ^= 1 << int(rng.integers(8))
        case 1:
            raw[at] = int(rng.integers(256))
        case 2:
            del raw[at:]
        case 3:
            raw[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8))
        case 4:
            del raw[at : at + int(rng.integers(1, 9))]
    file.write_bytes(raw)
    return f"{file.name} at {at} of {len(raw)}"


@pytest.mark.parametrize("name", LAYOUTS)
def test_damaged_files(name, tmp_path):
    (tmp_path / "whole").mkdir()
    made = LAYOUTS[name](tmp_path / "whole")
    files = [file.relative_to(tmp_path / "whole") for file in sorted((tmp_path / "whole").rglob("*")) if file.is_file()]
    rng, refused = np.random.default_rng(0), 0
    for i in range(TRIES):
        folder = tmp_path / "damaged"
        shutil.copytree(tmp_path / "whole", folder)
        how = damage(folder / files[int(rng.integers(len(files)))], rng)
        address = made.address.replace(str(tmp_path / "whole"), str(folder), 1)
        for use in (lambda: check(open_rows(address)), lambda: convert(address, tmp_path / f"out{i}")):  # noqa: B023
            line = ""
            try:
                use()
            except UserError as error:
                line = str(error)
            except Exception as error:
                raise AssertionError(f"{how}: {error!r}") from error
            refused += bool(line)
            assert len(line.splitlines()) <= 1, how
            assert len(line) < 900, how
        shutil.rmtree(folder)
    assert refused > TRIES // 10
