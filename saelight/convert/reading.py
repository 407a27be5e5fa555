"""SAEs from folders and files of any known format."""

import os
from pathlib import Path

from saelight.convert.sae_sources import the_one_at
from saelight.saes.sae import SAE


def load(folder: str | Path, fold_normalisation: bool = True, allow_nan: bool = False) -> SAE:
    """A trained SAE from its folder: a plain module with `encode`, `decode` and `forward`, on the CPU, in eval mode.

    The folder may be another library's too, or a file (docs/convert.md). No code is imported or run because of what it says:
    import a variant of your own before you load an SAE of it.

    Args:
        folder: The SAE's folder, e.g. `runs/quickstart/saes/topk-4`, or one that holds this SAE alone; on a hub
            `hf://user/repo/path` or `hf://user/repo@revision/path` (docs/share.md).
        fold_normalisation: Fold the training data's mean and scale into the weights, so that the SAE takes and gives the
            model's own activations (a transcoder's targets likewise), and the norms of TopK kinds' free decoder rows into
            their latents. False keeps the trained weights as they are; they expect activations as the training data was
            normalised.
        allow_nan: Load weights that are NaN or infinite, to look at them; else they are refused.

    Raises:
        UserError: when the folder holds no SAE, more than one, one of a newer saelight or of a variant that is not imported,
            one that was damaged, or weights that do not fit their config; when the hub does not give it.
    """
    return read(folder, fold=fold_normalisation, allow_nan=allow_nan)


def read(path: str | os.PathLike[str], format: str | None = None, *, fold: bool = True, allow_nan: bool = False) -> SAE:
    """The one SAE at `path`, on this machine or on a hub, with its `provenance`.

    Args:
        format: Its format. Default: found out.
        fold: Fold the units it was trained in into its weights; else it expects activations in them.
        allow_nan: Take weights that are not finite.

    Raises:
        UserError: where there is none, or more than one, or it cannot be read.
    """
    return the_one_at(path, format).read(fold, allow_nan)
