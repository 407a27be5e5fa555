"""Random models of a few thousand weights, with a tokenizer of letters, in folders as people have them."""

from pathlib import Path
from typing import Any

import pytest
import torch


def llama(folder: Path, **config: Any) -> str:
    """A causal model of two layers, 16 wide; its tokenizer adds nothing to a text."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
    return _saved(folder, transformers.LlamaConfig(**sizes | {"max_position_embeddings": 64} | config), ends=False)


def bert(folder: Path, **config: Any) -> str:
    """A model of two layers, 16 wide, that looks both ways; its tokenizer begins and ends a text."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40}
    return _saved(folder, transformers.BertConfig(**sizes | {"max_position_embeddings": 64} | config), ends=True)


def _saved(folder: Path, config: Any, ends: bool) -> str:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz ."]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = transformers.AutoModel.from_config(config)
        # Further apart than at their initialisation, so that what a token sees is seen in its row.
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
    network.save_pretrained(folder)
    return str(folder)
