"""A bank's SAEs: their configs by name, and a module that knows what its members are."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import nn

from saelight.errors import UserError
from saelight.saes import SAE, SAEConfig
from saelight.saes.plain_data import from_spec

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def configs(saes: Mapping[str, SAEConfig | dict[str, Any]]) -> dict[str, SAEConfig]:
    """The configs by name; a checkpoint's hyper-parameters hold them as plain data.

    Raises:
        UserError: for none at all, and for a name that can be no folder's.
    """
    if not saes:
        raise UserError("model.saes is empty: name at least one SAE")
    for name in saes:
        if not _NAME.fullmatch(name):
            raise UserError(f"{name!r} cannot name an SAE: use letters, digits, '_', '-' and '.' (not first)")
    return {name: from_spec(sae) if isinstance(sae, dict) else sae for name, sae in saes.items()}


class SAEList(nn.ModuleList):
    """A `ModuleList` of SAEs."""

    def __iter__(self) -> Iterator[SAE]:
        return cast(Iterator[SAE], super().__iter__())

    def __getitem__(self, i: int) -> SAE:  # type: ignore[override]  # a bank has no use for slices
        return cast(SAE, super().__getitem__(i))
