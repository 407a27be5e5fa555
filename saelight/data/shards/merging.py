"""Parts of a shard folder made one folder, without a copy: their files stay where they are."""

import contextlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from saelight.data.remote.remote_url import Url, located
from saelight.data.shards.disk import cannot_read, check_free, is_there, writing
from saelight.data.shards.folder_part import PART_FILE, Note, SharedFolder, unlike
from saelight.data.shards.metadata import FORMAT, METADATA, VERSION, sealed
from saelight.data.shards.reader import decreasing
from saelight.errors import UserError
from saelight.files import sync


def merge(out: str | Path | Url) -> str:
    """Make the folder `out` of its parts, or of those of all hooks in it; what was made, in a line for each.

    Raises:
        UserError: There are no parts, some are missing or not done yet, or they do not belong together.
    """
    out = located(out)
    inner: Sequence[Path | Url] = _hooks(out) if isinstance(out, Path) else []
    return "\n".join(map(merge_one, inner or [out]))


def merge_one(out: Path | Url) -> str:
    """Make one folder of its parts. Raises as `merge`."""
    folder = SharedFolder(out)
    if not (notes := folder.notes()):
        check_free(out)
        raise UserError(f"no parts of {out}: `saelight shards harvest --part 1/16` and so on write them")
    if waiting := missing(notes):
        raise UserError(f"{out} is not whole yet: {waiting}; harvest these parts, then merge again")
    lock = folder.hold("merge")
    if lock is None:
        raise UserError(f"{out} is being merged by another process; wait for it")
    with lock:
        meta = _metadata(out, notes)
        folder.write(METADATA, [memoryview(sealed(meta))])
        if isinstance(out, Path) and isinstance(folder.place, Path):
            with writing(out):
                check_free(out)
                sync(folder.place)
                os.rename(folder.place, out)
                sync(out.parent)
        _remove_notes(folder, out)
    return f"{meta['rows']:,} rows of {len(notes)} parts in {out}: {len(meta['shards'])} shards"


def missing(notes: Sequence[Note]) -> str:
    """Which parts are missing or not done, in words; nothing when all are done."""
    of = notes[0]["of"]
    states = {note["part"]: note["done"] for note in notes}
    open_ = [number for number in range(1, of + 1) if not states.get(number)]
    listed = ", ".join(map(str, open_[:20])) + (", …" if len(open_) > 20 else "")
    return f"of {of} parts {listed} {'is' if len(open_) == 1 else 'are'} not done" if open_ else ""


def _metadata(out: Path | Url, notes: Sequence[Note]) -> dict[str, Any]:
    """The folder's. Raises `UserError` for parts that do not belong together."""
    full = [note for note in notes if note["shards"]]
    if not full:
        raise UserError(f"no rows in the parts of {out}: there was no text, or every token was dropped")
    settings = full[0]["settings"]
    for before, note in itertools.pairwise(full):
        if why := unlike(settings, note["settings"]):
            raise UserError(f"part {note['part']} of {out} has {why}; harvest it again with the others' settings")
        if before["documents"] and note["documents"] and note["documents"][0] < before["documents"][1]:
            raise UserError(decreasing(f"part {note['part']} of {out}"))
    counts: dict[str, int] = {}
    for note in notes:
        for key, n in note["counts"].items():
            counts[key] = counts.get(key, 0) + n
    shards = [entry for note in full for entry in note["shards"]]
    rows = sum(entry["rows"] for entry in shards)
    total_D = torch.tensor([note["sum"] for note in full], dtype=torch.float64).sum(0)
    sums = {"count": rows, "sum_of_squares": sum(note["squares"] for note in full), "sum": total_D.tolist()}
    source = settings["source"] | counts | {"parts": len(notes)}
    meta = (
        {"format": FORMAT, "version": VERSION} | settings | {"rows": rows, "shards": shards, "sums": sums, "source": source}
    )
    dropped = [report for note in full for report in note["dropped"]]
    return meta | ({"dropped": dropped} if dropped else {})


def _remove_notes(folder: SharedFolder, out: Path | Url) -> None:
    """What the parts noted is in the metadata now. What cannot be removed is in nobody's way."""
    with contextlib.suppress(OSError, UserError):
        if isinstance(out, Path):
            for path in [path for path in out.iterdir() if PART_FILE.fullmatch(path.name)]:
                path.unlink(missing_ok=True)
        else:
            for name in [name for name in folder.names() if PART_FILE.fullmatch(name)]:
                folder.remove(name)


def _hooks(out: Path) -> Sequence[Path | Url]:
    """The folders of several hooks in `out` that are in parts."""
    if not is_there(out):
        return []
    try:
        return sorted(path.with_suffix("") for path in out.iterdir() if path.suffix == ".partial" and path.is_dir())
    except OSError as error:
        raise cannot_read(out, error) from None
