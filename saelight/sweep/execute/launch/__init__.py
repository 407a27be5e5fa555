"""Where groups run: a launcher a file, behind one contract (launcher.py), found by name in one table."""

import importlib

from saelight.errors import UserError, did_you_mean
from saelight.sweep.execute.launch.ddp import DDPLauncher
from saelight.sweep.execute.launch.launcher import Launcher, Outcome
from saelight.sweep.execute.launch.local import LocalLauncher
from saelight.sweep.execute.launch.slurm_array import SlurmLauncher

__all__ = ["LAUNCHERS", "Launcher", "Outcome", "find"]

LAUNCHERS: dict[str, type[Launcher]] = {
    launcher.name: launcher
    for launcher in (
        LocalLauncher,
        DDPLauncher,
        SlurmLauncher,
    )
}


def find(name: str) -> type[Launcher]:
    """The launcher of this name, or of this class path (`package.module.Class`), whose module is imported.

    Raises:
        UserError: there is none.
    """
    if name in LAUNCHERS:
        return LAUNCHERS[name]
    module, dot, attribute = name.rpartition(".")
    if not dot or not all(part.isidentifier() for part in module.split(".")):
        near = did_you_mean(name, LAUNCHERS) or f": give {', '.join(LAUNCHERS)}, or a class path"
        raise UserError(f"--launcher {name}: there is no such launcher{near}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"--launcher {name}: {error}; name a class that can be imported from here") from None
    if not (isinstance(found, type) and issubclass(found, Launcher)):
        raise UserError(f"--launcher {name} is no launcher: derive it from saelight.sweep.execute.launch.Launcher")
    return found
