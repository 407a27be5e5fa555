"""Data sets of the `datasets` library as documents, a row each: `hf://OWNER/NAME[@REVISION][/FILES]` of a hub, and folders
that `save_to_disk` wrote."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from saelight.data.harvest.cells import IMAGE_COLUMNS, TEXT_COLUMNS, chosen_column, content
from saelight.errors import UserError, did_you_mean, one_line

_ADDRESS = re.compile(r"hf://(?:datasets/)?(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<files>.+))?")
_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"
_TIMEOUT = 10  # seconds in which a hub has to answer whether there is such a data set


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return (folder / _SAVED).is_file() or (folder / _SAVED_SPLITS).is_file()


class DataSet:
    """The documents in a column of a data set. Making one opens it.

    Args:
        place: `hf://OWNER/NAME[@REVISION][/FILES]`, or a folder that `save_to_disk` wrote.
        column: The column that holds documents. Default: text, else input_ids.
        split: Of its splits, where it has some.
        subset: Of a hub's configurations of the data set.
        streaming: Read a hub's over the network as it is needed; false downloads it whole before.
        images: Whether documents are images, and the default column image, else img.

    Raises:
        UserError: There is no such data set, split, subset or column, the hub does not answer, or the extra is not there.
    """

    def __init__(
        self,
        place: str | Path,
        column: str | None = None,
        split: str = "train",
        subset: str | None = None,
        streaming: bool = True,
        images: bool = False,
    ) -> None:
        self.place, self._content = place, _image if images else content
        if find_spec("datasets") is None:
            raise UserError(f"reading {place} takes the datasets library; pip install 'saelight[datasets]'")
        try:
            self._rows = _saved(place, split) if isinstance(place, Path) else _from_hub(place, split, subset, streaming)
            there = self._rows.column_names or list(next(iter(self._rows), {}))
        except UserError:
            raise
        except Exception as error:  # the hub's, the library's and the formats' own are of many kinds
            raise UserError(
                f"cannot read {place}: {one_line(error).rstrip('.')}; check its name, subset and revision"
            ) from error
        self.column = chosen_column(column, there, place, IMAGE_COLUMNS if images else TEXT_COLUMNS)
        # The others are not decoded.
        self._rows = self._rows.select_columns([self.column])

    def __iter__(self) -> Iterator[Any]:
        row = 0
        try:
            for cells in self._rows:
                if (document := self._content(cells[self.column], self.column, f"{self.place}, row {row}")) is not None:
                    yield document
                row += 1
        except UserError:
            raise
        except Exception as error:  # as above
            raise UserError(
                f"cannot read {self.place} beyond row {row}: {one_line(error).rstrip('.')}; begin again"
            ) from error


def _saved(folder: Path, split: str) -> Any:
    import datasets

    saved = datasets.load_from_disk(str(folder))
    return _split(saved, split, folder) if isinstance(saved, datasets.DatasetDict) else saved


def _from_hub(place: str, split: str, subset: str | None, streaming: bool) -> Any:
    import datasets
    import huggingface_hub

    match = _ADDRESS.fullmatch(place)
    if match is None:
        raise UserError(f"{place} is no data set; write hf://OWNER/NAME, hf://OWNER/NAME@REVISION or hf://OWNER/NAME/FILES")
    # Asked at once: the library asks again and again.
    if not huggingface_hub.constants.HF_HUB_OFFLINE:
        huggingface_hub.HfApi().dataset_info(match["name"], revision=match["revision"], timeout=_TIMEOUT)
    which = {"name": subset, "revision": match["revision"], "data_files": match["files"]}
    if streaming:
        return _split(datasets.load_dataset(match["name"], streaming=True, **which), split, place)
    # The split alone, or all would be downloaded.
    return datasets.load_dataset(match["name"], split=split, **which)


def _split(splits: Any, split: str, place: object) -> Any:
    if split not in splits:
        near = did_you_mean(split, splits) or "; choose one with `split`"
        raise UserError(f"{place} has no split {split!r}, only {', '.join(splits)}{near}")
    return splits[split]


def _image(value: Any, column: str, place: object) -> Any:
    """A cell's image in RGB; None where it is empty. Raises `UserError` for what is none."""
    if value is None:
        return None
    if not hasattr(value, "convert"):
        raise UserError(f"{place}: column {column!r} holds {type(value).__name__}, no image; choose another with `column`")
    return value.convert("RGB")
