"""Tiny transformers models of many kinds, random, and folders of them as people have them."""

from pathlib import Path
from typing import Any

import pytest

WIDTH, INNER, WORDS, HEADS = 16, 32, 40, 2
SMALL = {"hidden_size": WIDTH, "num_attention_heads": HEADS, "intermediate_size": INNER, "num_hidden_layers": 2}
PIXELS, PATCH = 16, 4
"""Of an image's side, and of a patch's."""


def of_text(kind: str, **more: Any) -> Any:
    """A model's configuration, of a name below."""
    t = pytest.importorskip("transformers")
    gpt = {"n_embd": WIDTH, "n_head": HEADS, "n_layer": 2}
    blocks: dict[str, Any] = {"num_layers": 2, "num_heads": HEADS}
    halves = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in HALF.items()}
    made = {
        "gpt2": lambda: t.GPT2Config(**gpt, n_positions=64, vocab_size=WORDS, **more),
        "gptj": lambda: t.GPTJConfig(**gpt, rotary_dim=4, vocab_size=WORDS, **more),
        "gptneo": lambda: t.GPTNeoConfig(
            hidden_size=WIDTH, attention_types=[[["global"], 2]], vocab_size=WORDS, **blocks, **more
        ),
        "neox": lambda: t.GPTNeoXConfig(**SMALL, vocab_size=WORDS, **more),
        "bloom": lambda: t.BloomConfig(hidden_size=WIDTH, n_layer=2, n_head=HEADS, vocab_size=WORDS, **more),
        "falcon": lambda: t.FalconConfig(**_without(SMALL, "intermediate_size"), vocab_size=WORDS, **more),
        "opt": lambda: t.OPTConfig(
            **_without(SMALL, "intermediate_size"), ffn_dim=INNER, word_embed_proj_dim=WIDTH, vocab_size=WORDS, **more
        ),
        "phi": lambda: t.PhiConfig(**SMALL, vocab_size=WORDS, **more),
        "gemma2": lambda: t.Gemma2Config(**SMALL, head_dim=8, num_key_value_heads=1, vocab_size=WORDS, **more),
        "llama": lambda: t.LlamaConfig(**SMALL, vocab_size=WORDS, max_position_embeddings=64, **more),
        "qwen3": lambda: t.Qwen3Config(**SMALL, head_dim=8, num_key_value_heads=1, vocab_size=WORDS, **more),
        "t5": lambda: t.T5Config(d_model=WIDTH, d_kv=8, d_ff=INNER, vocab_size=WORDS, **blocks, **more),
        "bart": lambda: t.BartConfig(d_model=WIDTH, **halves, vocab_size=WORDS, max_position_embeddings=64, **more),
    }
    return made[kind]()


HALF = {"layers": 2, "ffn_dim": INNER, "attention_heads": HEADS}


def of_images(kind: str) -> Any:
    """A configuration of a vision tower, of a name below."""
    t = pytest.importorskip("transformers")
    sizes = {"image_size": PIXELS, "patch_size": PATCH}
    made = {
        "vit": lambda: t.ViTConfig(**SMALL, **sizes),
        "clip_vision": lambda: t.CLIPVisionConfig(**SMALL, **sizes),
        "siglip": lambda: t.SiglipVisionConfig(**SMALL, **sizes),
        "dinov2": lambda: t.Dinov2WithRegistersConfig(
            **_without(SMALL, "intermediate_size"), **sizes, num_register_tokens=3
        ),
    }
    return made[kind]()


def built(config: Any) -> Any:
    """The model of a configuration, random but always the same, in eval mode."""
    import torch
    import transformers

    torch.manual_seed(0)
    return transformers.AutoModel.from_config(config).eval()


def saved_model(folder: Path, config: Any) -> str:
    """A tiny model of some kind, and a tokenizer of words and letters, as people have them in a folder."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<unk>", "<s>", "<end>", *"abcdefghijklmnopqrstuvwxyz<>"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens(["<unk>", "<end>"])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")
    fast.save_pretrained(folder)
    built(config).save_pretrained(folder)
    return str(folder)


def saved_vision(folder: Path, config: Any) -> str:
    """A tiny model of images with its image processor, in a folder."""
    transformers = pytest.importorskip("transformers")
    built(config).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": PIXELS, "width": PIXELS}).save_pretrained(folder)
    return str(folder)


def _without(sizes: dict[str, int], name: str) -> dict[str, int]:
    return {key: value for key, value in sizes.items() if key != name}
