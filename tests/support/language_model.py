"""A language model of two layers that a second of training has taught something, in a folder, as people have them."""

import contextlib
import random
from pathlib import Path
from typing import Any

import torch

WIDTH, LAYERS, CONTEXT = 32, 2, 24
_NOUNS, _VERBS = ["cat", "dog", "fox", "owl", "bee"], ["sees", "hears", "likes", "meets"]
WORDS = ["<pad>", "<bos>", "<eos>", *_NOUNS, *_VERBS, "the", "a", "old", "small", "and", "."]


def text(sentences: int, seed: int = 0) -> str:
    """Sentences that are easy to guess."""
    draw = random.Random(seed)

    def one() -> str:
        noun = draw.randrange(len(_NOUNS))
        # Whom somebody meets hangs on who it is: there is something that the stream must carry.
        return f"the {draw.choice(['old', 'small'])} {_NOUNS[noun]} {draw.choice(_VERBS)} a {_NOUNS[noun - 1]} ."

    return " ".join(one() for _ in range(sentences))


def tokenizer() -> Any:
    """One of words, which begins a text with a BOS token."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    bare = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<eos>"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bare.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bare, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<eos>"
    )


def trained_model(steps: int = 25) -> Any:
    """A Llama in eval mode, trained on `text`."""
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                hidden_size=WIDTH,
                num_hidden_layers=LAYERS,
                num_attention_heads=2,
                intermediate_size=2 * WIDTH,
                vocab_size=len(WORDS),
                max_position_embeddings=64,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=0,
            )
        )
        ids = torch.tensor(tokenizer()(text(200, seed=1))["input_ids"])
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(steps):
            starts = torch.randint(len(ids) - CONTEXT, (16,))
            windows = torch.stack([ids[start : start + CONTEXT] for start in starts])
            windows[:, 0] = 1
            optimizer.zero_grad()
            model(input_ids=windows, labels=windows).loss.backward()
            optimizer.step()
    return model.eval()


def save(folder: Path) -> None:
    """Write the model and its tokenizer."""
    tokenizer().save_pretrained(folder)
    trained_model().save_pretrained(folder)


def lay_out(folder: Path, model: str = "model", run: str = "tiny") -> None:
    """Write the model, two texts in `texts/`, the activations of its first layer and a run of two SAEs on these."""
    import saelight
    from saelight.data.harvest.harvester import harvest
    from tests.support.runs import trainer

    save(folder / model)
    (folder / "texts").mkdir(exist_ok=True)
    for seed in (5, 6):
        (folder / "texts" / f"{seed}.txt").write_text(text(40, seed))
    with contextlib.chdir(folder):
        harvest(model, ["texts/*.txt"], ["layers.0"], "acts", context=CONTEXT)
        data = saelight.ActivationDataModule(path="acts", batch_size=64)
        saes = {f"topk-{k}": saelight.TopK(d_sae=64, k=k, lr=5e-3) for k in (2, 8)}
        fit = trainer(Path(), name=run, max_epochs=3, log_every_n_steps=50)
        fit.fit(saelight.SAEBank(saes, d_in=data.d_in), data)
