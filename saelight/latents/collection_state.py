"""How far a collection is, on disk: one file an SAE, from which the same command goes on to the same bits."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from saelight.errors import UserError, one_line
from saelight.files import replacing
from saelight.latents.latent_record import LatentRecord
from saelight.latents.mapped_tensors import write_tensors

_ABOUT = "about"
_RESTART = "--fresh begins anew"


def path_of(folder: Path) -> Path:
    """The file beside the folder of latents that is to be."""
    return folder.with_name(f"{folder.name}.collecting")


def save(path: Path, record: LatentRecord, settings: dict[str, Any]) -> None:
    """Write all of a record, whole or not at all.

    Args:
        settings: All that the result depends on beside the record.
    """
    about = {
        "settings": settings,
        "next_row": record.next_row,
        "lowest_octave": record.lowest_octave,
        "share": record.rows.share,
    }
    text = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    with replacing(path) as partial:
        # The header of the format wants no order, and what is large comes last.
        write_tensors(partial, {_ABOUT: text} | record.arrays())


def restore(path: Path, record: LatentRecord, settings: dict[str, Any]) -> bool:
    """Go on with a record from its file; False where there is none.

    Raises:
        UserError: The file is damaged, or of a collection over other rows, with other settings, or of other weights.
    """
    if not os.path.lexists(path):
        return False
    try:
        arrays = load_file(path)
        about = json.loads(arrays.pop(_ABOUT).tobytes())
        if about["settings"] != settings:
            changed = [key for key in settings if about["settings"].get(key) != settings[key]]
            raise UserError(
                f"{path} is of a collection that was stopped, with another {', '.join(changed)}: repeat that command, or "
                f"{_RESTART}"
            )
        record.restore(arrays, about["next_row"], about["lowest_octave"], about["share"])
    except UserError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({one_line(error)}): {_RESTART}") from None
    return True
