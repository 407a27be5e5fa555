"""A bank's SAEs: a module that knows what its members are."""

from collections.abc import Iterator
from typing import cast

from torch import nn

from saelight.saes import SAE


class SAEList(nn.ModuleList):
    """A `ModuleList` of SAEs."""

    def __iter__(self) -> Iterator[SAE]:
        return cast(Iterator[SAE], super().__iter__())

    def __getitem__(self, i: int) -> SAE:  # type: ignore[override]  # a bank has no use for slices
        return cast(SAE, super().__getitem__(i))
