"""The source of one's own that docs/data.md shows, and data for it."""

import re
from pathlib import Path

import numpy as np

N, D, VAL = 1300, 6, 100
_PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def write_own_source(folder: Path) -> None:
    """Write the page's class as the module `own_source`, and `x.npy`: (N, D), of which VAL rows are for validation."""
    *_, shown = re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    (folder / "own_source.py").write_text(shown)
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(N, D)).astype(np.float32))
