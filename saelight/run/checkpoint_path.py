"""Which checkpoint `--ckpt_path` names."""

import os
from pathlib import Path

from saelight.errors import UserError
from saelight.run import run_folder
from saelight.saes.sae_folder import WEIGHTS


def find(ckpt_path: str | os.PathLike[str], last_of: Path | None, root: Path, name: str) -> Path:
    """The checkpoint's file.

    Args:
        ckpt_path: The file, or `last`.
        last_of: The run folder whose checkpoint `last` is. None: of the newest run called `name` in `root`.

    Raises:
        UserError: There is none, or it is a trained SAE's folder.
    """
    try:
        path = run_folder.checkpoint(last_of or run_folder.latest(root, name)) if ckpt_path == "last" else Path(ckpt_path)
        for folder in (path, path.parent):
            if (folder / WEIGHTS).is_file():
                raise UserError(
                    f"{path} is no checkpoint to resume, it is a trained SAE's: give an SAE of a new run init_from: {folder}"
                )
        if not path.is_file():
            raise UserError(f"no checkpoint at {path}: give a .ckpt file that a run has written, or `last`")
    except OSError as error:
        raise UserError(f"{ckpt_path} cannot be read: {error}") from None
    return path
