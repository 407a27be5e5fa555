"""The card of what is shared: a README.md whose front matter the hub reads and whose text people do.

It ends in a digest of itself, by which a later push knows whether somebody has written in it.
"""

import hashlib
import html
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from saelight.hook_names import short_model
from saelight.hub.hub_place import HubPlace
from saelight.hub.shared_saes import Shared, SharedSAE
from saelight.report.metric_words import word

CARD, FRONT = "README.md", "front.png"
_COLUMNS = ("l0", "fvu", "loss_recovered", "explained_variance", "dead")
"""Of the metrics, where some SAE has them."""
_LIBRARIES = {"sae_lens": "saelens", "circuit_tracer": "circuit-tracer", "openmoss": "lm-saes"}
"""What the hub calls the libraries of formats, where that is not the format's name."""
_MARK = re.compile(r"\n<!-- written by saelight push, ([0-9a-f]{64}) -->\n\Z")
_ON_A_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_MOST_LISTED = 100


def card(shared: Shared, place: HubPlace, has_front: bool, others: Collection[str] = ()) -> str:
    """The text of the file.

    Args:
        shared: What is shared.
        place: Where.
        has_front: Whether the picture of the front lies beside the card.
        others: Paths of SAEs that are in the repository already.
    """
    sections = [
        _front_matter(shared),
        f"# {_title(shared)}",
        _about(shared),
        _table(shared.saes),
        "![Sparsity against reconstruction](front.png)" if has_front else "",
        _loading(shared, place),
        _others(others),
        _training(shared.saes),
    ]
    text = "\n\n".join(section for section in sections if section) + "\n"
    return f"{text}\n<!-- written by saelight push, {_digest(text)} -->\n"


def is_as_written(text: str) -> bool:
    """Whether a card is one of these, and nobody has changed it since."""
    match = _MARK.search(text := text.replace("\r\n", "\n"))
    return match is not None and _digest(text[: match.start()]) == match[1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _front_matter(shared: Shared) -> str:
    from huggingface_hub import ModelCardData

    models, datasets = ([told for told in _told(shared, key) if _is_on_a_hub(told)] for key in ("model", "dataset"))
    variants = sorted({sae.variant.lower().replace(" ", "-") for sae in shared.saes})
    data = ModelCardData(
        library_name=_LIBRARIES.get(shared.format or "", shared.format or "saelight"),
        base_model=models or None,
        datasets=datasets or None,
        tags=["sparse-autoencoder", "sae", "mechanistic-interpretability", "saelight", *variants],
    )
    return f"---\n{data.to_yaml()}\n---"


def _title(shared: Shared) -> str:
    n = len(shared.saes)
    transcode = [sae.d_out is not None for sae in shared.saes]
    what = "transcoder" if all(transcode) else "SAE" if any(transcode) else "sparse autoencoder"
    models = _told(shared, "model")
    on = f" on {_text(short_model(str(models[0])))}" if len(models) == 1 else ""
    return f"{n} {what}s{on}" if n > 1 else f"A {what}{on}"


def _about(shared: Shared) -> str:
    """Where the activations came from, as far as all tell the same."""
    words = {
        "model": "model",
        "hook": "hook",
        "hook_name": "hook in TransformerLens",
        "dataset": "text",
        "context": "context length",
        "downloaded_from": "downloaded from",
    }
    lines = [f"- {words[key]}: `{_code(told[0])}`" for key in words if len(told := _told(shared, key)) == 1]
    if targets := {str(to.get("hook")) for sae in shared.saes if (to := sae.provenance.target_source) and to.get("hook")}:
        lines.append(f"- hook of the targets: `{_code(', '.join(sorted(targets)))}`")
    widths = sorted({sae.d_in for sae in shared.saes})
    lines.append(f"- width of the activations: {', '.join(f'{width:,}' for width in widths)}")
    by = sorted({str(sae.provenance.versions.get("saelight")) for sae in shared.saes if sae.provenance.versions})
    lines.append(f"- trained by [saelight](https://pypi.org/project/saelight/) {_text(', '.join(by))}" if by else "")
    return "\n".join(filter(None, lines))


def _table(saes: list[SharedSAE]) -> str:
    metrics = {sae.path: _metrics(sae) for sae in saes}
    shown = [key for key in _COLUMNS if any(key in of for of in metrics.values())]
    ended = any(_state(sae) not in (None, "finished") for sae in saes)
    titles = ["SAE", "variant", "latents", *(word(key).label for key in shown), *["state"] * ended]
    lines = [titles, ["---", "---", "---:", *["---:"] * len(shown), *["---"] * ended]]
    for sae in saes:
        values = [_number(metrics[sae.path].get(key), word(key).percent) for key in shown]
        state = [str(_state(sae) or "")] * ended
        lines.append([f"`{_code(sae.path or '.')}`", _text(sae.variant), f"{sae.d_sae:,}", *values, *map(_text, state)])
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _loading(shared: Shared, place: HubPlace) -> str:
    first = place._replace(path=shared.saes[0].path)
    lines = ["## Loading", "", "```python", "import saelight", "", f"sae = saelight.load({json.dumps(str(first))})", "```"]
    if shared.format == "sae_lens" and first.path:
        lines += ["", "and in SAELens", "", "```python", "from sae_lens import SAE", ""]
        lines += ["import saelight.convert.in_sae_lens", ""] if shared.notes else []
        lines += [f"sae = SAE.from_pretrained({json.dumps(place.repo)}, {json.dumps(first.path)})", "```"]
    return "\n".join([*lines, *(f"\n{note}" for note in shared.notes)])


def _others(others: Collection[str]) -> str:
    if not others:
        return ""
    shown = ", ".join(f"`{_code(path)}`" for path in sorted(others)[:_MOST_LISTED])
    return f"## Also here\n\n{shown}{', …' if len(others) > _MOST_LISTED else ''}"


def _training(saes: list[SharedSAE]) -> str:
    """Every SAE's settings, folded away."""
    configs = {}
    for sae in saes:
        tokens = sae.provenance.training.get("tokens")
        configs[sae.path or "."] = sae.spec | ({"tokens": tokens} if tokens else {})
    listed = yaml.safe_dump(json.loads(json.dumps(configs)), sort_keys=False, allow_unicode=True)
    return f"<details><summary>Settings of every SAE</summary>\n\n````yaml\n{listed}````\n\n</details>"


def _told(shared: Shared, key: str) -> list[Any]:
    """What the SAEs' sources say, each once."""
    told = (sae.provenance.source.get(key) for sae in shared.saes)
    return list(dict.fromkeys(fact for fact in told if isinstance(fact, str | int) and fact != ""))


def _is_on_a_hub(name: Any) -> bool:
    """Whether a model's or a text's name is as a hub's are, and none of a folder here."""
    return isinstance(name, str) and bool(_ON_A_HUB.fullmatch(name)) and not Path(name).exists()


def _metrics(sae: SharedSAE) -> Mapping[str, float]:
    metrics = ((sae.row or {}).get("metrics") or {}) | dict(sae.on_model)
    return {key: value for key, value in metrics.items() if isinstance(value, int | float)}


def _state(sae: SharedSAE) -> str | None:
    """How its training ended, as its run says, or its folder."""
    state = (sae.row or {}).get("state") or sae.provenance.training.get("state")
    return state if isinstance(state, str) else None


def _number(value: float | None, percent: bool) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if percent else f"{value:.4g}"


def _text(words: str) -> str:
    """Words that are nothing but text in Markdown."""
    return re.sub(r"([\\`*_{}\[\]#!])", r"\\\1", html.escape(" ".join(str(words).split()), quote=False))


def _code(words: Any) -> str:
    """The same between backticks."""
    return " ".join(str(words).replace("`", "'").split())
