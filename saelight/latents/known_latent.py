"""What is known of one latent, as plain records."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class Token(NamedTuple):
    """A token of a context."""

    id: int | None
    """None where the data have no token ids."""
    text: str
    """Readable, with the space before it; `#123` where only the id is known."""
    activation: float
    """The latent's, of the sign that it has at the context's strongest token; to 1/255 of that."""
    after_gap: bool
    """Rows between this token and the one before it are not in the data: special tokens, attention sinks."""


@dataclass(frozen=True)
class Context:
    """A latent's strongest token in one window of the model's, and those around it."""

    row: int
    """Of the strongest token, in the data."""
    value: float
    document: int | None
    position: int | None
    """In the model's window."""
    peak: int
    """The place of the strongest token in `tokens`."""
    tokens: list[Token]
    """Those of the same window, at most 12 before and 7 after. Without token ids they have no text; the activations are
    known where the rows are known to follow one another."""

    @property
    def text(self) -> str:
        """The tokens' texts, joined; a gap is `…`."""
        return "".join(("…" if token.after_gap else "") + token.text for token in self.tokens)


@dataclass(frozen=True)
class Interval:
    """Contexts drawn at random from those whose strongest activation is in [low, high)."""

    low: float
    high: float
    contexts: list[Context]


@dataclass(frozen=True)
class Related:
    """A latent that is like this one."""

    sae: str | None
    """The SAE it is of; None: the same."""
    latent: int
    cosine: float
    """Of the decoder rows; of latents that fire together, of the two firing patterns, n_ij / √(n_i n_j)."""
    count: int | None = None
    """Of latents that fire together: the sampled rows at which both fire."""


@dataclass(frozen=True)
class Counted:
    """A token on which a latent fires often."""

    id: int
    text: str
    count: int
    """Of its firings at least; at most the latent's `token_error` more."""


@dataclass(frozen=True)
class Logit:
    """What a latent adds to a token's logit per unit of activation, the final norm's division left out."""

    id: int
    text: str
    logit: float


@dataclass(frozen=True)
class Latent:
    """All that is known of one latent."""

    index: int
    fired: int
    """Tokens at which it is not 0."""
    density: float
    """Their share."""
    mean: float
    """Mean |activation| where it fires; 0 where it never does."""
    maximum: float
    histogram: list[tuple[float, int]]
    """(lower edge, tokens) by octave of |activation|, from the lowest that has any to the highest."""
    top: list[Context]
    """The strongest first, of each window of the model's the strongest token only."""
    samples: list[Interval]
    """By octave below the maximum, the highest first; empty ones left out."""
    tokens: list[Counted]
    token_error: int
    near: list[Related]
    """The nearest decoder rows of the same SAE."""
    across: list[Related]
    """The nearest of other SAEs, one an SAE."""
    together: list[Related]
    """The latents that fire on the same rows."""
    promoted: list[Logit]
    suppressed: list[Logit]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)
