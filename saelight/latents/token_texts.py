"""Token ids as text that people can read, each with the space before it, from a tokenizer that is on this machine."""

import functools
import re
from collections.abc import Iterable
from typing import Any

from saelight.data.harvest import documents
from saelight.errors import one_line

_SPACE = "▁"
"""SentencePiece's space."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_CONTINUES = "##"
"""Of WordPiece: no space comes before it."""


@functools.lru_cache(maxsize=2)
def known(tokenizer: str) -> Any:
    """The tokenizer of a folder or hub name (`{package:NAME}` being a package's folder); a text that says why there is none
    to be had without a network."""
    try:
        import transformers
    except ImportError:
        return "pip install 'saelight[harvest]' for transformers"
    try:
        return transformers.AutoTokenizer.from_pretrained(
            documents.expand(tokenizer), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the hub's, transformers' and the formats' own are of many kinds
        return one_line(error)


def texts(tokenizer: Any, ids: Iterable[int]) -> dict[int, str]:
    """The text of each id that the tokenizer has."""
    size = len(tokenizer)
    inside = [id for id in ids if 0 <= id < size]
    pieces = dict(zip(inside, tokenizer.convert_ids_to_tokens(inside), strict=True))
    decoder = repr(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None))
    special = set(tokenizer.all_special_tokens)
    kind = _from_bytes if "ByteLevel" in decoder else _from_words if "WordPiece" in decoder else _from_pieces
    return {id: piece if piece in special else kind(piece) for id, piece in pieces.items() if piece is not None}


def _from_bytes(piece: str) -> str:
    """Of byte-level BPE, whose characters stand for bytes; a part of a character is written as `\\xe2`."""
    table = _bytes_by_character()
    if not all(character in table for character in piece):
        return piece  # an added token, which is written as it is
    return bytes(table[character] for character in piece).decode("utf-8", errors="backslashreplace")


def _from_words(piece: str) -> str:
    return piece.removeprefix(_CONTINUES) if piece.startswith(_CONTINUES) else f" {piece}"


def _from_pieces(piece: str) -> str:
    if match := _BYTE.fullmatch(piece):
        return bytes([int(match[1], 16)]).decode("utf-8", errors="backslashreplace")
    return piece.replace(_SPACE, " ")


@functools.cache
def _bytes_by_character() -> dict[str, int]:
    """GPT-2's table: printable bytes are themselves, the others the characters from 256 on, in order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
