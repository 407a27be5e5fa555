"""Rows of images: of their patches, of their [CLS] token, or of both.

Shapes: B images of a batch, T tokens of an image, D width.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from saelight.data.harvest.corpus import Document
from saelight.data.harvest.hooked import Hooked
from saelight.data.row_filter import Piece
from saelight.errors import UserError, one_line

_BLANK = (224, 224)
_MOST_BEFORE = 16
"""Tokens before the patches: [CLS], registers, what a model was distilled by."""


class ImageRows:
    """Runs a model over images. Making one runs it over a blank image, to see which of its tokens are patches.

    A model's sequence is [CLS], if it has one, then registers, if it has some, then the patches, row by row. What comes
    before the patches is found by their number: that of the model's configuration, or else the largest square.

    Args:
        hooked: The model and its hooks.
        transform: An image processor of transformers, or a function from a Pillow image to pixels (channels, H, W).
        tokens: "patch", "cls", or both.
        batch_size: Images of a batch.
        dtype: What the rows are to be stored in.

    Raises:
        UserError: The hooks do not give the model's tokens, or it has no [CLS] token and that is asked for.
    """

    def __init__(self, hooked: Hooked, transform: Any, tokens: Sequence[str], batch_size: int, dtype: torch.dtype) -> None:
        self._hooked, self._transform, self._batch_size, self._dtype = hooked, transform, batch_size, dtype
        from PIL import Image

        if not tokens:
            raise UserError("image_tokens is empty; name patch, cls or both")
        pixels = self._pixels([Image.new("RGB", _BLANK)])
        self.runs = hooked.probe(pixel_values=pixels)
        """How often each hook's module runs in a pass."""
        lengths = hooked.lengths
        if len(set(lengths.values())) > 1:
            raise UserError(f"the hooks give unequal numbers of tokens ({lengths}); harvest them apart")
        (length,) = set(lengths.values())
        self._size = height, width = tuple(pixels.shape[-2:])
        grid = _grid(hooked.model, height, width) or (math.isqrt(length), math.isqrt(length))
        before = length - grid[0] * grid[1]
        if not 0 <= before <= _MOST_BEFORE:
            raise UserError(
                f"module {next(iter(lengths))!r} gives {length} tokens for {grid[0]} × {grid[1]} patches; hook one "
                "that gives all"
            )
        if "cls" in tokens and not before:
            raise UserError("the model has no [CLS] token, its tokens are all patches; set image_tokens to [patch]")
        chosen = [*([0] if "cls" in tokens else []), *(range(before, length) if "patch" in tokens else [])]
        self._chosen_T = torch.tensor(chosen)
        self.about = {"size": [height, width], "patches": list(grid), "first_patch": before}
        """For the metadata: pixels of an image and its patches, (rows, columns) each, and the first patch's position."""

    def __call__(self, documents: Iterable[Document]) -> Iterator[Piece]:
        """A piece a batch. Positions are places in the model's sequence, document ids the images' numbers."""
        iterator = iter(documents)
        while batch := list(itertools.islice(iterator, self._batch_size)):
            pixels = self._pixels([document.content for document in batch])
            if (size := tuple(pixels.shape[-2:])) != self._size:
                raise UserError(
                    f"images become {size} pixels, a blank one {self._size}; let the transform resize them to one size"
                )
            outputs = self._hooked(pixel_values=pixels)
            x = {hook: x_BTD[:, self._chosen_T].flatten(0, 1).to("cpu", self._dtype) for hook, x_BTD in outputs.items()}
            ids_B = torch.tensor([document.id for document in batch], dtype=torch.int64)
            columns = {
                "positions": self._chosen_T.to(torch.int32).repeat(len(batch)),
                "document_ids": ids_B.repeat_interleave(len(self._chosen_T)),
            }
            yield Piece(x, columns)

    def _pixels(self, images: list[Any]) -> Tensor:
        """Images as the model's input: (B, channels, H, W), of the dtype that it computes in."""
        try:
            if hasattr(self._transform, "model_input_names"):
                pixels = self._transform(images=images, return_tensors="pt")["pixel_values"]
            else:
                pixels = torch.stack([torch.as_tensor(self._transform(image)) for image in images])
        except Exception as error:  # whatever a transform raises
            raise UserError(
                f"the images cannot be turned into pixels of one size ({one_line(error)}); mend the transform"
            ) from error
        return pixels.to(next((p.dtype for p in self._hooked.model.parameters()), torch.float32))


def _grid(model: Any, height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of patches, as the model's configuration has it; None where it does not say."""
    size = getattr(getattr(model, "config", None), "patch_size", None)
    if isinstance(size, int):
        size = (size, size)
    return (height // size[0], width // size[1]) if size else None
