"""Rows that a model has yet to write: a harvest's config in place of the shards that it makes."""

from pathlib import Path

from saelight.errors import UserError, one_line
from saelight.parsing.config_files import read_mapping

_SUFFIXES = (".yaml", ".yml")


def is_harvest(data: str) -> bool:
    """Whether `data` names a harvest's config."""
    return data.endswith(_SUFFIXES)


def shards_of(config: str, hook: str | None) -> Path:
    """The folder of shards that the harvest writes for a hook; it is run where they are not there yet.

    Args:
        hook: Which, of several that it writes. None: not known.

    Raises:
        UserError: for a config that is no harvest's, or of several hooks and not this one; and as the harvest does.
    """
    settings = read_mapping(config)
    hooks, out = settings.get("hooks"), settings.get("out")
    if not isinstance(hooks, list) or not hooks or not isinstance(out, str) or not out:
        raise UserError(
            f"{config} is no config of a harvest (model, files, hooks, out), nor rows: see shards harvest --help"
        )
    folders = {str(name): Path(out) / str(name) if len(hooks) > 1 else Path(out) for name in hooks}
    if len(folders) > 1 and hook not in folders:
        raise UserError(
            f"{config} writes {', '.join(folders)}, the SAE is of {hook or 'an unknown hook'}: leave one in hooks"
        )
    folder = folders[hook] if hook in folders else next(iter(folders.values()))
    if not folder.exists():
        from saelight.data.harvest.harvester import harvest

        try:
            harvest(**settings)
        except TypeError as error:
            raise UserError(f"{config} has settings that no harvest has ({one_line(error)}): drop them") from None
    return folder
