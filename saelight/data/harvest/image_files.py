"""Images as documents, a file each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saelight.errors import UserError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class ImageFile:
    """The image in the file at `path`, in RGB; None where the file cannot be read as one.

    Raises `UserError` when Pillow is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            import PIL.Image  # noqa: F401
        except ImportError:
            raise UserError(f"reading {path} takes Pillow; pip install 'saelight[images]'") from None

    def __iter__(self) -> Iterator[Any]:
        from PIL import Image

        try:
            with Image.open(self.path) as image:
                picture = image.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            picture = None
        yield picture
