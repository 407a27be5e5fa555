"""saelight's own folders (docs/saes.md), as one format among the others."""

import os
from pathlib import Path

from saelight.convert.files_of_tensors import json_file
from saelight.convert.format import Format, Layout
from saelight.convert.parts import plain_copy
from saelight.errors import UserError
from saelight.ops.normalisation import Normalisation
from saelight.run import export
from saelight.saes import sae_folder, trained
from saelight.saes.provenance import Provenance
from saelight.saes.sae import SAE


def _is_one(path: Path) -> bool:
    config, weights = path / sae_folder.CONFIG, path / sae_folder.WEIGHTS
    if not config.is_file():
        return False
    try:
        return json_file(config).get("format") == sae_folder.FORMAT
    except UserError:
        # A config that is damaged beside weights of this name is refused as one of saelight's.
        return weights.is_file()


def has_a_file(folder: Path) -> bool:
    """Whether there is something where one of the files of saelight's SAEs would be: a damaged one of them, perhaps."""
    return any(os.path.lexists(folder / name) for name in (sae_folder.CONFIG, sae_folder.WEIGHTS))


def read(folder: Path, fold: bool = True, allow_nan: bool = False) -> SAE:
    """The SAE of a folder, in eval mode, with its provenance. Raises `UserError`."""
    sae, normalisation, target_normalisation = trained.read(folder, allow_nan)
    if fold:
        sae.fold_for_use(normalisation, target_normalisation)
        if not allow_nan:
            sae_folder.check_finite(sae_folder.published(sae), f"{folder}, with its normalisation folded in")
    config = sae_folder.describe(folder).config
    sae.provenance = Provenance(**{name: getattr(config, name) for name in Provenance.__dataclass_fields__})
    return sae.eval().requires_grad_(False)


def _write(sae: SAE, provenance: Provenance, folder: Path) -> None:
    export.write(
        plain_copy(sae),
        folder,
        name=provenance.name,
        seed=provenance.seed,
        normalisation=Normalisation(),
        target_normalisation=Normalisation() if sae.is_transcoder else None,
        source=provenance.source,
        target_source=provenance.target_source,
        training=provenance.training,
        versions=provenance.versions,
        commit=provenance.commit,
    )


_LAYOUT = Layout((sae_folder.CONFIG, sae_folder.WEIGHTS))
FORMAT = Format(name="saelight", is_one=_is_one, layouts=(_LAYOUT,), read=read, write=_write)
