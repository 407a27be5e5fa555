"""`saelight shards harvest | merge | convert | filter | info | verify`. Nothing heavy is imported before a command runs."""

from collections.abc import Callable

from jsonargparse import auto_cli, set_parsing_settings

from saelight.data.harvest.harvester import harvest
from saelight.parsing.messages import OneLineParser


def convert(source: str, out: str, dtype: str | None = None, model: str | None = None, hook: str | None = None) -> None:
    """Write activations in another layout as a folder of shards: what cannot be read in place, too.

    Args:
        source: A .npy, .npz, .safetensors or .parquet file, a folder of such, a cache of saev, SAELens or OpenMOSS, or raw
            arrays with .meta; `SOURCE:NAME` says which tensor or column, `SOURCE@6` which layer, where there are several.
        out: Folder to make.
        dtype: What to store: bfloat16, float16 or float32. Default: what the source has, float64 as float32.
        model: The model's name, for provenance.
        hook: The hook's name, for provenance.
    """
    from saelight.data.foreign import converting

    print(converting.convert(source, out, dtype, model, hook))


def filter(
    src: str, out: str, max_norm: float | None = 10.0, skip_positions: int = 0, drop_tokens: list[int] | None = None
) -> None:
    """Write shards anew without the rows that are not to be trained on, as a harvest leaves them out.

    Args:
        src: Folder of the shards, or of several hooks' folders of shards: what one of them drops, all do; or activations in
            another layout.
        out: Folder to make.
        max_norm: Leave out rows whose norm is more than this many times the median norm, which the first 8,192 rows decide
            for each hook; null keeps all.
        skip_positions: Leave out this many positions at the beginning of each window.
        drop_tokens: Leave out the rows of these token ids.
    """
    from saelight.data.row_filter import RowFilter
    from saelight.data.shards.filtering import filter_shards

    print(filter_shards(src, out, RowFilter(max_norm, skip_positions, drop_tokens or ())))


def info(path: str) -> None:
    """Print what a folder of shards holds, and how the norms of its rows are spread.

    Args:
        path: Folder of the shards, or activations in another layout.
    """
    from saelight.data.shard_summary import summary

    print(summary(path))


def merge(out: str) -> None:
    """Make one folder of the parts that `saelight shards harvest --part` wrote, where the last of them could not. Nothing is
    copied.

    Args:
        out: The folder that is to be, or that of several hooks' folders.
    """
    from saelight.data.shards import merging

    print(merging.merge(out))


def verify(path: str) -> None:
    """Check checksums, finite values, columns and sums of a folder of shards; of activations in another layout the values.

    Args:
        path: Folder of the shards, or activations in another layout.
    """
    from saelight.data.foreign.checking import check
    from saelight.data.foreign.foreign_rows import ForeignRows
    from saelight.data.foreign.opening import open_rows
    from saelight.data.shards.verify import verify

    rows = open_rows(path)
    print(check(rows) if isinstance(rows, ForeignRows) else verify(path))


COMMANDS: dict[str, Callable[..., None]] = {
    "harvest": harvest,
    "merge": merge,
    "convert": convert,
    "filter": filter,
    "info": info,
    "verify": verify,
}


def run(args: list[str]) -> None:
    """Run one command."""
    name = args[0] if args else ""
    # A harvest's settings are fields, whose docstrings its help shows; reading them off the sources takes time.
    explains = name == "harvest" and any("help" in word or "print_config" in word for word in args)
    set_parsing_settings(docstring_parse_attribute_docstrings=explains)
    if name in COMMANDS:
        # What a harvest needs is given by name, or in a config.
        prog = f"saelight shards {name}"
        auto_cli(COMMANDS[name], parser_class=OneLineParser, as_positional=name != "harvest", prog=prog, args=args[1:])
    else:
        auto_cli(dict(COMMANDS), parser_class=OneLineParser, prog="saelight shards", args=args)
