"""A text through a model and an SAE, in a process of its own: `python -m saelight.serve.text_process`

Reads requests from standard input and answers each on standard output, a line of JSON each. It fetches nothing, and runs no
code that comes with a model.

Shapes: T tokens, F d_sae.
"""

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

from saelight.errors import UserError, one_line
from saelight.sweep.execute.child import end_with_parent

_MOST_TOKENS = 512
_TOP, _PER_TOKEN = 20, 8
"""Latents that are shown of the whole text, and of each token."""


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What an SAE makes of a text.

    Args:
        request: `sae`, its folder; `text`; `latents`, numbers that are to be shown whatever else fires.

    Returns:
        `tokens`: text and the strongest latents of each; `latents`: number, maximum and values (T,) of the strongest, those
        asked for first; `l0` and `fvu` of the tokens that are not special.

    Raises:
        UserError: The SAE's model is not here, or not for text.
    """
    sae, tokenizer, hooked, hook, limit = _loaded(request["sae"])
    import torch

    text = request["text"]
    encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    ids = torch.tensor([encoded["input_ids"][:limit]], device=hooked.device)
    with torch.inference_mode():
        x_TD = hooked(input_ids=ids, attention_mask=torch.ones_like(ids))[hook][0].float().cpu()
        f_TF = sae.encode(x_TD)
        plain = torch.tensor([not special for special in encoded["special_tokens_mask"][:limit]])
        own_TF, own_TD = f_TF[plain], x_TD[plain]
        error = (sae.decode(own_TF) - own_TD).square().sum()
        spread = (own_TD - own_TD.mean(0)).square().sum()
    highest_F = own_TF.abs().amax(0) if len(own_TF) else f_TF.new_zeros(f_TF.shape[1])
    strongest = [int(i) for i in highest_F.topk(min(_TOP, len(highest_F))).indices if highest_F[i] > 0]
    asked = [i for i in request["latents"] if 0 <= i < len(highest_F)]
    return {
        "tokens": _tokens(text, encoded, f_TF, plain),
        "cut": len(encoded["input_ids"]) > limit,
        "latents": [
            {"latent": i, "maximum": float(highest_F[i]), "values": [round(v, 4) for v in f_TF[:, i].tolist()]}
            for i in dict.fromkeys([*asked, *strongest])
        ],
        "l0": float((own_TF != 0).sum(1).float().mean()) if len(own_TF) else None,
        "fvu": float(error / spread) if len(own_TF) > 1 and spread > 0 else None,
    }


def _tokens(text: str, encoded: Any, f_TF: Any, plain: Any) -> list[dict[str, Any]]:
    """Each token with the text before it that none has, and its strongest latents."""
    tokens, end = [], 0
    for i, f_F in enumerate(f_TF):
        stop = encoded["offset_mapping"][i][1]
        top = f_F.abs().topk(min(_PER_TOKEN, len(f_F))).indices.tolist() if plain[i] else []
        tokens.append(
            {
                "text": text[end:stop] if plain[i] else "",
                "special": not bool(plain[i]),
                "latents": [{"latent": j, "value": round(float(f_F[j]), 4)} for j in top if f_F[j] != 0],
            }
        )
        end = max(end, stop)
    return tokens


@functools.lru_cache(maxsize=4)
def _loaded(folder: str) -> tuple[Any, Any, Any, str, int]:
    """The SAE, its model's tokenizer, the model with the SAE's hook, and the most tokens of a text."""
    source = json.loads((Path(folder) / "config.json").read_text()).get("source")
    source = source if isinstance(source, dict) else {}
    model, hook = source.get("model"), source.get("hook")
    if not (isinstance(model, str) and isinstance(hook, str)):
        raise UserError(f"{folder} names no model and hook: only SAEs of a language model's activations read text")
    tokenizer, hooked, limit = _model(model, hook)
    import saelight

    return saelight.load(folder), tokenizer, hooked, hook, limit


@functools.lru_cache(maxsize=1)
def _model(name: str, hook: str) -> tuple[Any, Any, int]:
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise UserError("text is read by transformers: pip install 'saelight[harvest]'") from None
    from saelight.data.harvest import own_model
    from saelight.data.harvest.hooked import Hooked
    from saelight.data.harvest.loading import load
    from saelight.data.harvest.model_settings import ModelSettings

    if own_model.is_path(name):
        raise UserError(f"the model of this SAE is made by {name}, a function, which is not run here: try text in Python")
    loaded = load(ModelSettings(name, device="cpu"), [hook])
    if loaded.tokenizer is None:
        raise UserError(f"model {name!r} has no tokenizer ({loaded.lacks}): it reads no text here")
    return loaded.tokenizer, Hooked(loaded.network, [hook]), min(_MOST_TOKENS, loaded.positions or _MOST_TOKENS)


def _answered(line: str) -> dict[str, Any]:
    try:
        return answer(json.loads(line))
    except UserError as error:
        return {"error": str(error)}
    except Exception as error:  # whatever a model raises of a text
        return {"error": f"the text could not be read: {one_line(error)}"}


if __name__ == "__main__":
    end_with_parent()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.nice(10)  # training comes first
    for request_line in sys.stdin:
        print(json.dumps(_answered(request_line)), flush=True)
