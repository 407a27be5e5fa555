"""Documents cut into what the model sees at once: one document a window, or several packed into each.

A window is made of segments, pieces of one document each. A segment has the special tokens that the tokenizer gives a text:
it is what a window of its own would hold.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from saelight.data.harvest.model_settings import LoadedModel
from saelight.errors import UserError
from saelight.ranges import Range

if TYPE_CHECKING:
    from saelight.data.row_filter import RowFilter

_DOCUMENTS = 16
"""Documents that are tokenized at a time."""


@dataclass(kw_only=True, eq=False)
class WindowSettings:
    """How text is cut into windows."""

    context: Annotated[int, Range(least=1, most=2**24)] = 128
    """Tokens the model sees at once, special tokens included; documents are cut into such windows."""
    packed: bool = False
    """Put documents one after another into each window until it is full, a separator (the tokenizer's end of a text, or else
    its EOS token) behind each, as SAELens and sparsify do. false: a window holds one document, the rest is padding, which no
    model sees: every row has the context that its text gives it. true saves that padding where texts are short."""
    attend_across: bool = False
    """In packed windows, let tokens attend to the documents before theirs, as SAELens and sparsify do. false: positions
    begin anew with each document, and none sees another (a block-diagonal mask): a row depends on its own text alone."""
    bos: bool | None = None
    """Begin each text, and each further window of it, with the BOS token (or CLS): null as the tokenizer does by itself,
    which is how the model was trained; true always; false never."""
    drop_special: bool = True
    """Leave out the rows of the special tokens that are added to a text, and in pre-tokenised documents of their ids.
    Padding is always left out."""
    special_in_text: bool = False
    """Read special tokens that are written out in a text (`<|endoftext|>`, `[SEP]`) as such, and not as text like any
    other."""


class Segment(NamedTuple):
    """A piece of a document in a window."""

    document: int
    first: int
    """Tokens of the document before it."""
    ids: list[int]
    special: list[bool]
    """Whose rows are left out, as those of tokens that were added to the text."""


class TextWindow(NamedTuple):
    """What the model sees at once."""

    segments: Sequence[Segment]

    @property
    def ids(self) -> list[int]:
        """The tokens."""
        return [id_ for segment in self.segments for id_ in segment.ids]

    @property
    def special(self) -> list[bool]:
        """Which of the tokens' rows are left out."""
        return [special for segment in self.segments for special in segment.special]

    @property
    def rows(self) -> int:
        """Tokens whose rows are not left out as special ones."""
        return self.special.count(False)


class WindowCutter:
    """Cuts documents into windows for a model, by its tokenizer.

    Raises `UserError` when windows have no room beside the special tokens, are longer than the model's reach, or there is no
    BOS token to begin them with.
    """

    def __init__(self, settings: WindowSettings, model: LoadedModel) -> None:
        if settings.attend_across and not settings.packed:
            raise UserError("attend_across is for packed windows, of several documents; set packed: true, or leave it out")
        model.check_context(settings.context)
        self.settings, self._model = settings, model
        self._known = model.special_ids
        self._before, self._after, self._separator = _added(settings, model.tokenizer)
        least = len(self._before) + len(self._after) + 1
        if settings.context < least:
            raise UserError(f"a context of {settings.context} has no room for a token of text; set it to {least} or more")

    def __call__(self, documents: Iterable[tuple[int, str | list[int]]], skip: int = 0) -> Iterator[TextWindow]:
        """The windows of numbered documents, texts or token ids, in order.

        Token ids are taken as they are: nothing is added to them.

        Args:
            skip: Tokens of the first document that earlier windows hold.
        """
        context, drop, held = self.settings.context, self.settings.drop_special, list[Segment]()
        room = context
        for number, ids, given in self._tokenized(documents):
            before, after, separator = ([], [], []) if given else (self._before, self._after, self._separator)
            while skip < len(ids):
                if (fits := room - len(before) - len(after)) < 1:
                    yield TextWindow(held)
                    held, room = [], context
                    continue
                piece = ids[skip : skip + fits]
                ends = after + separator[: fits - len(piece)]
                of_text = [id_ in self._known for id_ in piece] if given and drop else [False] * len(piece)
                special = [drop] * len(before) + of_text + [drop] * len(ends)
                held.append(Segment(number, skip, [*before, *piece, *ends], special))
                room -= len(special)
                skip += len(piece)
                if not self.settings.packed:
                    yield TextWindow(held)
                    held, room = [], context
            skip = 0
        if held:
            yield TextWindow(held)

    def _tokenized(self, documents: Iterable[tuple[int, str | list[int]]]) -> Iterator[tuple[int, list[int], bool]]:
        """Each document's number and tokens, and whether it came as tokens."""
        left = iter(documents)
        while some := list(itertools.islice(left, _DOCUMENTS)):
            texts = [content for _, content in some if isinstance(content, str)]
            tokens = iter(self._tokens(texts))
            for number, content in some:
                if isinstance(content, str):
                    yield number, next(tokens), False
                else:
                    self._model.check_token_ids(content, number)
                    yield number, content, True

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        if self._model.tokenizer is None:
            raise UserError(
                f"model {self._model.name!r} has no tokenizer for text ({self._model.lacks}); name one with `tokenizer`, or "
                "give a `column` of token ids"
            )
        split = not self.settings.special_in_text
        cut = self._model.tokenizer(texts, add_special_tokens=False, split_special_tokens=split, return_attention_mask=False)
        return cut["input_ids"]


def in_groups(windows: Iterator[TextWindow], size: int, row_filter: "RowFilter") -> Iterator[list[TextWindow]]:
    """The windows, `size` at a time; the last ones no more than hold the rows that may still pass the filter."""
    while True:
        room = math.inf if row_filter.at_most is None else row_filter.at_most - row_filter.passed
        group: list[TextWindow] = []
        while room > 0 and len(group) < size and (window := next(windows, None)):
            group.append(window)
            room -= window.rows
        if not group:
            return
        yield group


def _added(settings: WindowSettings, tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """The special tokens before and behind each piece of a text, and behind a text that another one follows."""
    if tokenizer is None:
        return [], [], []
    with_added = tokenizer("a", return_special_tokens_mask=True)
    ids, added = with_added["input_ids"], with_added["special_tokens_mask"]
    n_before = len(list(itertools.takewhile(bool, added)))
    n_after = len(list(itertools.takewhile(bool, reversed(added[n_before:]))))
    before, after, separator = ids[:n_before], ids[len(ids) - n_after :], []
    if settings.bos is False:
        before = []
    elif settings.bos and not before:
        before = [_one_of(tokenizer, "bos_token_id", "cls_token_id")]
    if settings.packed and not after:
        separator = [_one_of(tokenizer, "eos_token_id", "sep_token_id")]
    return before, after, separator


def _one_of(tokenizer: Any, *names: str) -> int:
    for name in names:
        if (id_ := getattr(tokenizer, name, None)) is not None:
            return int(id_)
    words = " nor ".join(name.removesuffix("_token_id").upper() for name in names)
    setting = "bos: null" if names[0].startswith("bos") else "packed: false"
    raise UserError(f"the tokenizer has no {words} token; set {setting}")
