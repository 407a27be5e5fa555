"""What one format of SAEs on disk is made of: one file of this room gives one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from saelight.convert.beside import restored
from saelight.convert.parts import Parts, assemble
from saelight.errors import UserError, one_line
from saelight.saes.provenance import Provenance
from saelight.saes.sae import SAE


class Layout(NamedTuple):
    """The files that one SAE is made of, by their paths in its folder, `..` for what lies beside that: what is fetched or
    shared of it, and what it is known by where only names can be seen."""

    needs: tuple[str, ...]
    also: tuple[str, ...] = ()
    """Read where they are there."""
    is_file: bool = False
    """Whether the SAE is a file, the first of `needs`, which is a pattern; `*` in the others is what it matched."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format of SAEs on disk."""

    name: str
    is_one: Callable[[Path], bool]
    """Whether the path (a folder, or a file) is one SAE of this format, as far as a look at names tells."""
    layouts: tuple[Layout, ...]
    read: Callable[[Path, bool, bool], SAE]
    """The SAE at a path; with its units folded in, if the second is true; if the third, also one that is not finite."""
    write: Callable[[SAE, Provenance, Path], str | None] | None = None
    """Into an empty folder; what the user has to know of it, or None. No function where saelight only reads the format."""
    write_set: Callable[[dict[str, tuple[SAE, Provenance]], Path], None] | None = None
    """Several SAEs, by name, into one empty folder that is one thing to the other library."""
    several: str | None = None
    """A pattern of files that are one SAE each, where a folder holds several."""


def from_parts(read: Callable[[Path], Parts]) -> Callable[[Path, bool, bool], SAE]:
    """A `Format.read` that puts together what `read` takes apart, and what saelight has left beside it."""

    def read_whole(path: Path, fold: bool, allow_nan: bool) -> SAE:
        try:
            return assemble(restored(read(path)), fold, allow_nan)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            # Whatever goes wrong over what a file says, the file is at fault.
            raise UserError(f"{path} cannot be read: {one_line(error)}") from error

    return read_whole
