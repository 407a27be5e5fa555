"""What a model reads, as documents in a fixed order, whatever holds them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saelight.data.foreign.parquet_file import SUFFIX
from saelight.data.harvest import image_files, json_lines, unpacked
from saelight.data.harvest.cells import Content
from saelight.data.harvest.documents import find
from saelight.data.harvest.hub_data import DataSet
from saelight.data.harvest.image_files import ImageFile
from saelight.data.harvest.json_lines import JsonLines
from saelight.data.harvest.parquet_text import ParquetText
from saelight.data.harvest.plain_text import PlainText
from saelight.data.harvest.text_settings import TextSettings
from saelight.errors import UserError

_MOST_BITS = 32


class Document(NamedTuple):
    """A document and its place."""

    id: int
    """Its number in the corpus, from 0 on: what is stored as its document id."""
    content: Content | Any
    """Text, token ids, or an image (Pillow's, in RGB)."""


class Corpus:
    """The documents of what `settings.files` names, always in the same order, read as they are asked for. Iterating it again
    begins again. Files that are no UTF-8 text, and images that cannot be read, are skipped; so are empty documents.

    Making one looks at what is there: the files, and the columns of each.

    Args:
        settings: What to read.
        images: Whether the model reads images, not text.

    Raises:
        UserError: A pattern without files, a data set that is nowhere, a column that is not there, a damaged file.
    """

    def __init__(self, settings: TextSettings, images: bool = False) -> None:
        self.skipped = 0
        """Files skipped so far."""
        self.first = 0
        """The first document's number."""
        there = places(settings, images)
        part = _part_of_images if images else _part
        self._parts = [found for place in there if (found := part(place, settings)) is not None]
        if not self._parts:
            raise UserError(
                f"no images among {len(there)} files, such as {there[0]}, and the model reads images; name files "
                f"({', '.join(image_files.SUFFIXES)}) or a folder of them in `files`"
            )

    def share(self, take: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        """Read no more than a share of the files and data sets: what `take` takes of a list, one after the other. Numbers of
        documents rise from share to share: where a file may hold many, shares begin 2³² a file apart."""
        many = any(not isinstance(part, PlainText | ImageFile) for part in self._parts)
        self.first = take(range(len(self._parts)))[0] << (_MOST_BITS if many else 0)
        self._parts = list(take(self._parts))

    def __iter__(self) -> Iterator[Document]:
        """The documents, numbered as they come."""
        self.skipped, number = 0, self.first
        for part in self._parts:
            for content in part:
                if content is None:
                    self.skipped += 1
                else:
                    yield Document(number, content)
                    number += 1


def places(settings: TextSettings, images: bool = False) -> list[Path | str]:
    """The files, in their order, and behind them the data sets of hubs. Raises `UserError` for a pattern without files."""
    patterns = [name for name in settings.files if name not in settings.data_sets]
    files = find(patterns, settings.exclude or [], settings.seed, images) if patterns else []
    return [*files, *settings.data_sets]


def _data_set(place: Path | str, settings: TextSettings, images: bool = False) -> DataSet:
    return DataSet(place, settings.column, settings.split, settings.subset, settings.streaming, images)


def _part_of_images(place: Path | str, settings: TextSettings) -> Iterable[Any] | None:
    """What reads one image, or one data set of images; None for another file."""
    if isinstance(place, str) or place.is_dir():
        return _data_set(place, settings, images=True)
    return ImageFile(place) if place.suffix.lower() in image_files.SUFFIXES else None


def _part(place: Path | str, settings: TextSettings) -> Iterable[Content | None]:
    """What reads one file, or one data set."""
    if isinstance(place, str) or place.is_dir():
        return _data_set(place, settings)
    kind = unpacked.kind(place)
    if kind == SUFFIX:
        return ParquetText(place, settings.column)
    if kind in json_lines.SUFFIXES or (settings.column is not None and kind in json_lines.WITH_A_COLUMN):
        return JsonLines(place, settings.column)
    return PlainText(place)
