"""Where in a model an SAE belongs: the module that a hook's name means, what it puts out or what it is given."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import nn

from saelight.convert import hook_names
from saelight.data.harvest.hooked import no_module

_INPUT, _OUTPUT = ".input", ".output"
_STREAM = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")


class Place(NamedTuple):
    """The activations at one end of a module."""

    path: str
    """The module's dotted path in the model."""
    module: nn.Module
    is_input: bool
    """What the module is given, and not what it puts out."""

    @property
    def name(self) -> str:
        """As harvests and other libraries write it."""
        return self.path + _INPUT * self.is_input


def find(network: nn.Module, names: Sequence[str]) -> Place:
    """The place that the first of `names` means which the model has.

    A name is a dotted path in the model, or in the part of it that has no head, as harvests have it; `.input` behind it is
    what the module is given. TransformerLens's names are translated.

    Raises:
        UserError: The model has none of them; the nearest that it has are offered.
    """
    modules = dict(network.named_modules())
    for name in names:
        for path in _paths(network, name):
            base = path.removesuffix(_INPUT).removesuffix(_OUTPUT)
            for whole in (base, f"{getattr(network, 'base_model_prefix', '')}.{base}"):
                if base and whole in modules:
                    return Place(whole, modules[whole], path.endswith(_INPUT))
    raise no_module(names[0], modules)


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


def _paths(network: nn.Module, name: str) -> Iterator[str]:
    """What a name may mean as a dotted path."""
    yield name
    if not hook_names.is_transformer_lens(name):
        return
    config = getattr(network, "config", None)
    if dotted := hook_names.dotted(name, str(getattr(config, "model_type", "")).replace("_", "-")):
        yield dotted
    # Families that no table knows have blocks all the same.
    if match := _STREAM.fullmatch(name):
        layers = getattr(config, "num_hidden_layers", None)
        lists = [path for path, m in network.named_modules() if isinstance(m, nn.ModuleList) and len(m) == layers]
        for path in lists[:1]:
            yield f"{path}.{match[1]}{_INPUT * (match[2] == 'pre')}"
