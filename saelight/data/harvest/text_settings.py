"""What a model is to read. Light, as the command line asks for it: what reads is `corpus.py`."""

from dataclasses import dataclass, field


@dataclass(eq=False)
class TextSettings:
    """What the model reads. `Corpus` gives the documents."""

    files: list[str]
    """What the model reads: glob patterns of files (`**` goes through folders), folders, and data sets,
    `hf://OWNER/NAME[@REVISION][/FILES]`. A file of text or an image is a document; of .jsonl, .ndjson, .parquet and data
    sets, a row is one. .gz, .bz2 and .xz are unpacked. `{stdlib}` is the folder of Python's standard library,
    `{package:NAME}` that of an installed package."""
    exclude: list[str] | None = field(default=None, kw_only=True)
    """Patterns of files to leave out, matched against the whole path (`*` matches / too)."""
    column: str | None = field(default=None, kw_only=True)
    """Column of JSON lines, Parquet and data sets that holds the documents: texts, or lists of token ids, which are read as
    they are. Default: text, else input_ids; of images image, else img. With a column, .json files are read as JSON lines,
    too."""
    split: str = field(default="train", kw_only=True)
    """Split of data sets."""
    subset: str | None = field(default=None, kw_only=True)
    """Configuration of hf:// data sets, as wikitext's wikitext-103-v1."""
    streaming: bool = field(default=True, kw_only=True)
    """Read hf:// data sets over the network as they are needed; false downloads them whole before, into the hub's cache."""
    seed: int = field(default=0, kw_only=True)
    """Seed of the order of files, shuffled so that the last documents are a fair validation sample. Rows of a file stay in
    their order."""

    @property
    def data_sets(self) -> list[str]:
        """Those of `files` that are data sets of a hub."""
        return [name for name in self.files if name.startswith("hf://")]
