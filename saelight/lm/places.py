"""Where in a model an SAE belongs: the module that a hook's name means, what it puts out or what it is given."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from saelight.data.harvest.hooked import place_of
from saelight.errors import UserError


class ModulePlace(NamedTuple):
    """The activations at one end of a module."""

    name: str
    """Dotted path in the model, with `.input` behind it for what the module is given."""
    path: str
    """The module's own."""
    module: nn.Module
    is_input: bool
    """What the module is given, and not what it puts out."""


def find(network: nn.Module, names: Sequence[str]) -> ModulePlace:
    """The place that the first of `names` means which the model has: names as of `Hooked`.

    Raises:
        UserError: The model has none of them; the nearest that it has are offered.
    """
    modules = dict(network.named_modules())
    refusal: UserError | None = None
    for name in names:
        try:
            place = place_of(name, modules, getattr(network, "base_model_prefix", ""))
        except UserError as error:
            refusal = refusal or error
        else:
            return ModulePlace(place.path, place.module, modules[place.module], place.given)
    assert refusal is not None
    raise refusal


def blocks_around(network: nn.Module, path: str) -> tuple[list[nn.Module], int, bool] | None:
    """The list of blocks that the module at `path` is in: the blocks, the number of its own, and whether it is that block
    itself. None for a module outside."""
    modules = dict(network.named_modules())
    parts = path.split(".")
    for n in range(1, len(parts)):
        parent = modules[".".join(parts[:n])]
        if isinstance(parent, nn.ModuleList):
            return list(parent), int(parts[n]), n + 1 == len(parts)
    return None
