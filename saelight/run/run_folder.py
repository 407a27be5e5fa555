"""Run folders: `runs/<name>/`, one per training run, with everything it writes.

config.yaml   checkpoints/last.ckpt   logs/<sae>/   saes/<sae>/   predictions/<sae>.safetensors   results.jsonl
"""

import os
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING

from saelight.errors import UserError
from saelight.files import hold

if TYPE_CHECKING:
    import lightning as L


def of(trainer: "L.Trainer") -> Path:
    """Where a trainer's files go: the run folder, or of a Trainer that is not saelight's `default_root_dir`."""
    return Path(getattr(trainer, "folder", None) or trainer.default_root_dir)


def claim(root: Path, name: str) -> Path:
    """Create and return `root/name`, or `root/name-2`, … when that exists. Two runs started at once get two folders.

    Raises `UserError` where no folder can be made.
    """
    n = 1
    while True:
        folder = root / (name if n == 1 else f"{name}-{n}")
        try:
            root.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            return folder
        except OSError as error:
            # A file in the root's place exists too.
            if not (isinstance(error, FileExistsError) and root.is_dir()):
                raise _cannot_make(folder, error) from None
            n += 1


def claim_exactly(folder: Path) -> Path:
    """Create and return `folder`. Raises `UserError` for one that exists, or cannot be made."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise exists(folder) from None
    except OSError as error:
        raise _cannot_make(folder, error) from None
    return folder


def only_trainer(folder: Path) -> IO[str]:
    """Hold the folder for as long as what is returned is open. Raises `UserError` when another process trains in it."""
    if (lock := hold(folder / ".lock")) is None:
        raise UserError(f"another process trains in {folder}: wait for it or stop it, then --ckpt_path last goes on")
    return lock


def _cannot_make(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"run folder {folder} cannot be made ({error.strerror}): set trainer.root, or trainer.folder, to where you may write"
    )


def exists(folder: Path) -> UserError:
    """The refusal of a named folder that exists."""
    return UserError(
        f"run folder {folder} exists: name another, drop trainer.folder for a numbered one, or continue it with "
        "--ckpt_path last"
    )


def latest(root: Path, name: str) -> Path:
    """The newest run called `name`: the one with the highest number that has a checkpoint."""
    numbered = re.compile(re.escape(name) + r"(?:-(\d+))?")
    found = [
        (int(match[1] or 1), path)
        for path in (root.iterdir() if root.is_dir() else ())
        if (match := numbered.fullmatch(path.name)) and checkpoint(path).is_file()
    ]
    if not found:
        raise UserError(f"no run named {name!r} with a checkpoint in {root}/: train one first, or give --ckpt_path a file")
    return max(found)[1]


def checkpoint(folder: Path) -> Path:
    """Where a run keeps its checkpoint."""
    return folder / "checkpoints" / "last.ckpt"


def folder_of(ckpt_path: str | os.PathLike) -> Path | None:
    """The run folder a checkpoint lies in, if it lies in one."""
    path = Path(ckpt_path)
    return path.parent.parent if path.parent.name == "checkpoints" else None
