"""A model's rows as they are gone through: what is known of their tokens stays in a file, where contexts are cut from at the
end, and from which a collection that was stopped goes on."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saelight.data.harvest.text_pass import TextPass
from saelight.errors import UserError, one_line
from saelight.files import write_text

_TOKEN = np.dtype([("token_ids", "<i4"), ("positions", "<i4"), ("document_ids", "<i8")])
_TOKENS, _PLACE = "tokens.bin", "place.json"


@dataclass(eq=False)
class KeptPass(TextPass):
    """A `TextPass` of which nothing has been read, whose columns are kept on the disk, 16 bytes a row.

    Raises:
        UserError: What was kept of it before is damaged, or the text has changed since.
    """

    folder: Path
    """Where they are kept, made when the first rows come."""
    kept: int = field(init=False)
    """Rows whose columns are there: reading begins with one of them, or behind them."""

    def __post_init__(self) -> None:
        self.kept = self._restored()

    def column(self, name: str, start: int, n: int) -> Tensor:
        """Rows [start, start + n) of one of `columns`, of those that have come: (n,)."""
        tokens = np.fromfile(self.folder / _TOKENS, _TOKEN, n, offset=start * _TOKEN.itemsize)
        return torch.from_numpy(tokens[name].copy())

    def will_need(self, start: int, n: int) -> None:
        """Run the model as far as these rows, or to the end of the text, and keep what is known of them."""
        super().will_need(start, n)
        first, stop = self.kept, min(start + n, self.n_rows)
        if stop <= first:
            return
        tokens = np.empty(stop - first, _TOKEN)
        for name in self.columns:
            tokens[name] = super().column(name, first, stop - first).numpy()
        self.folder.mkdir(exist_ok=True)
        with (self.folder / _TOKENS).open("r+b" if first else "wb") as file:
            file.seek(first * _TOKEN.itemsize)
            file.write(tokens.tobytes())
        self.kept = stop

    def save(self, row: int) -> None:
        """Keep what it takes to go on from a row."""
        bookmark = self.stream.bookmark(row) | {"read": self.stream.last_read}
        place = {"rows": self.kept, "fingerprint": self.fingerprint, "bookmark": bookmark}
        write_text(self.folder / _PLACE, json.dumps(place), durable=False)

    def forget(self) -> None:
        """Remove what is kept."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _restored(self) -> int:
        """Go on from what was kept of these rows; how many these are."""
        path = self.folder / _PLACE
        try:
            place = json.loads(path.read_text())
            if place["fingerprint"] != self.fingerprint:
                return 0
            rows, bookmark = int(place["rows"]), place["bookmark"]
            if (self.folder / _TOKENS).stat().st_size < rows * _TOKEN.itemsize:
                raise ValueError("rows are missing")
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({one_line(error)}): --fresh begins anew") from None
        try:
            self.stream.check(bookmark)
        except UserError:
            raise UserError(
                f"the text is not what it was when the collection in {self.folder} was stopped: restore it, or --fresh "
                "begins anew"
            ) from None
        self.stream.go_to(bookmark)
        return rows
