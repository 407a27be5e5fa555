"""A bank's SAEs: their configs by name, and a module that knows what its members are."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import nn

from saelight.errors import UserError
from saelight.files import check_name
from saelight.saes import SAE, SAEConfig
from saelight.saes.plain_data import from_spec

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_TAKEN = {"bank"}  # the run, in logs, of what belongs to no single SAE


def configs(saes: Mapping[str, SAEConfig | dict[str, Any]]) -> dict[str, SAEConfig]:
    """The configs by name; a checkpoint's hyper-parameters hold them as plain data.

    Raises:
        UserError: for none at all, and for a name that can be no folder's.
    """
    if not saes:
        raise UserError("model.saes is empty: name at least one SAE")
    for name in saes:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(f"{name!r} cannot name an SAE: use a text of letters, digits, '_', '-' and '.' (not first)")
        check_name(name, "the SAE's name")
        if name.lower() in _TAKEN:
            raise UserError(f"{name!r} cannot name an SAE: it is the run of what belongs to no single one; choose another")
        if alike := [other for other in saes if other != name and other.lower() == name.lower()]:
            raise UserError(f"SAEs {name!r} and {alike[0]!r} differ by case alone, which some disks do not see: rename one")
    return {name: from_spec(sae) if isinstance(sae, dict) else sae for name, sae in saes.items()}


class SAEList(nn.ModuleList):
    """A `ModuleList` of SAEs."""

    def __iter__(self) -> Iterator[SAE]:
        return cast(Iterator[SAE], super().__iter__())

    def __getitem__(self, i: int) -> SAE:  # type: ignore[override]  # a bank has no use for slices
        return cast(SAE, super().__getitem__(i))
