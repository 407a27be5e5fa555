"""Latents as text: one in full, or many in a table."""

import sys
from collections.abc import Iterable, Sequence

from saelight.files import table
from saelight.latents.known_latent import Context, Latent, Related, Token
from saelight.latents.latents_reading import Latents

_BAR = 30  # characters of the longest bar of a histogram
_SHORT = 60  # characters of a context in a table
_CONTEXTS = 10


def card(latents: Latents, latent: Latent, contexts: int = _CONTEXTS) -> str:
    """All of one latent."""
    lines = [
        f"latent {latent.index} of {latents.name} ({latents.meta['variant']}, d_sae {len(latents):,}), "
        f"{latents.rows:,} tokens of {latents.meta['data']['hook'] or latents.meta['data']['path']}"
    ]
    if not latent.fired:
        return "\n".join([*lines, "it fires on none of them", *_relations(latent)])
    lines += [
        f"fires on {latent.fired:,} ({latent.density:.2%}), mean {latent.mean:.3g}, max {latent.maximum:.4g}",
        *_histogram(latent),
    ]
    if latent.tokens:
        error = f", each at most {latent.token_error:,} more" if latent.token_error else ""
        counted = ", ".join(f"{quoted(token.text)} {token.count:,}" for token in latent.tokens)
        lines.append(f"most often on{error}: {counted}")
    for what, logits in (("promotes", latent.promoted), ("suppresses", latent.suppressed)):
        if logits:
            lines.append(f"{what}: " + ", ".join(f"{quoted(one.text)} {one.logit:+.3g}" for one in logits))
    lines += _relations(latent)
    lines += ["", "strongest:", *_contexts(latent.top[:contexts])]
    for interval in latent.samples:
        lines += ["", f"drawn from [{interval.low:g}, {interval.high:g}):", *_contexts(interval.contexts)]
    return "\n".join(lines)


def rows(latents: Latents, chosen: Iterable[tuple[int, int]], scores: Sequence[float] | None = None) -> str:
    """A table of latents.

    Args:
        chosen: Their numbers, and of each the place in `top` of the context to show.
        scores: Of a search.
    """
    heads = ["latent", "density", "max", "nearest", "tokens", "context"]
    lines = []
    for i, context in chosen:
        latent = latents[i]
        nearest = f"{latent.near[0].cosine:.2f}" if latent.near else "-"
        often = " ".join(quoted(token.text) for token in latent.tokens[:3])
        shown = _short(latent.top[context]) if len(latent.top) > context else ""
        lines.append([str(i), f"{latent.density:.3%}", f"{latent.maximum:.3g}", nearest, often or "-", shown or "-"])
    if scores is not None:
        heads.insert(1, "score")
        for line, score in zip(lines, scores, strict=True):
            line.insert(1, f"{score:.2f}")
    return table([heads, *lines], left=(len(heads) - 2, len(heads) - 1))


def printable(text: str) -> str:
    """Text of data for a terminal, which obeys control characters."""
    plain = text.replace("\n", "⏎").replace("\t", "⇥")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)


def quoted(text: str) -> str:
    """A token's text so that its spaces are seen."""
    return f"'{printable(text)}'"


def _histogram(latent: Latent) -> list[str]:
    most = max(count for _, count in latent.histogram)
    return [
        f"  {low:>8.4g}  {'█' * max(bool(count), round(_BAR * count / most)):<{_BAR}}  {count:,}"
        for low, count in latent.histogram
    ]


def _relations(latent: Latent) -> list[str]:
    said = (("nearest in it", latent.near), ("nearest in others", latent.across), ("fires together with", latent.together))
    return [f"{what}: {', '.join(map(_related, related))}" for what, related in said if related]


def _related(one: Related) -> str:
    return f"{f'{one.sae}/' if one.sae else ''}{one.latent} ({one.cosine:.2f})"


def _contexts(contexts: list[Context]) -> list[str]:
    return [f"  {context.value:>9.4g}  {_place(context)}{marked(context)}" for context in contexts]


def _place(context: Context) -> str:
    """Where it is, if there is no text to show."""
    return "" if any(token.text for token in context.tokens) else f"row {context.row}"


def marked(context: Context) -> str:
    """The text with its strongest token marked, and on a terminal the others on which the latent fires underlined."""
    return "".join(
        ("…" if token.after_gap else "") + _mark(token, i == context.peak) for i, token in enumerate(context.tokens)
    )


def _mark(token: Token, peak: bool) -> str:
    text = printable(token.text)
    if not text:
        return ""
    if sys.stdout.isatty():
        return f"\033[1;7m{text}\033[0m" if peak else f"\033[4m{text}\033[0m" if token.activation else text
    space = len(text) - len(text.lstrip())
    return f"{text[:space]}«{text[space:]}»" if peak else text


def _short(context: Context) -> str:
    """As much as a table has room for, the strongest token in its midst."""
    text, tokens = marked(context), context.tokens
    if len(text) <= _SHORT or sys.stdout.isatty():
        return text
    before = sum(len(printable(token.text)) + token.after_gap for token in tokens[: context.peak])
    start = max(0, min(before - _SHORT // 2, len(text) - _SHORT))
    return f"{'…' if start else ''}{text[start : start + _SHORT]}{'…' if start + _SHORT < len(text) else ''}"
