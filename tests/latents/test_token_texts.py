"""Token ids become text that people can read, whatever kind of tokenizer made them."""

import pytest
from tokenizers import Tokenizer, decoders, models

from saelight.latents import token_texts

VOCABULARIES = {
    "bytes": (
        decoders.ByteLevel(),
        {"Ġthe": " the", "ing": "ing", "Ċ": "\n", "â": r"\xe2", "âĢĶ": "—", "Ġcaf": " caf", "Ã©": "é", "<|end|>": "<|end|>"},
    ),
    "words": (decoders.WordPiece(), {"the": " the", "##ing": "ing", "[SEP]": "[SEP]", "é": " é"}),
    "pieces": (decoders.Metaspace(), {"▁the": " the", "ing": "ing", "<0xE2>": r"\xe2", "<0x0A>": "\n", "▁": " "}),
}


@pytest.mark.parametrize(("decoder", "pieces"), VOCABULARIES.values(), ids=VOCABULARIES)
def test_pieces_are_read_as_they_stand_in_a_text(decoder, pieces):
    transformers = pytest.importorskip("transformers")
    backend = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="ing"))
    backend.decoder = decoder
    special = [piece for piece in pieces if piece[0] in "[<" and len(piece) > 4 and not piece.startswith("<0x")]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, additional_special_tokens=special)
    found = token_texts.texts(tokenizer, [*range(len(pieces)), 10_000, -1])
    assert found == dict(enumerate(pieces.values()))


def test_a_tokenizer_that_is_not_here_is_not_asked_for():
    pytest.importorskip("transformers")
    said = token_texts.known("nobody/has-this-model")
    assert isinstance(said, str)
    assert "\n" not in said
