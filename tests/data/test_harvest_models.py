"""Harvest of models of many kinds, tiny and in folders, as people have them: each works, or is one line that says why."""

import time

import pytest

from saelight.data.harvest.harvester import harvest
from saelight.errors import UserError
from tests.data.folders import read

SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 40}


def saved_model(folder, config):
    """A tiny model of some kind, and a tokenizer of words and letters, as people have them in a folder."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<unk>", "<s>", "<end>", *"abcdefghijklmnopqrstuvwxyz<>"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens(["<unk>", "<end>"])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")
    fast.save_pretrained(folder)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    return str(folder)


def models_of_many_kinds():
    t = pytest.importorskip("transformers")
    layers = {"num_hidden_layers": 2, **SMALL}
    gpt2 = t.GPT2Config(n_embd=16, n_head=2, n_layer=2, vocab_size=40, n_positions=24)
    albert = t.AlbertConfig(embedding_size=16, max_position_embeddings=24, **(layers | {"num_hidden_layers": 3}))
    roberta = t.RobertaConfig(max_position_embeddings=26, pad_token_id=1, type_vocab_size=1, **layers)
    xlnet = t.XLNetConfig(d_model=16, n_head=2, n_layer=2, d_inner=32, vocab_size=40)
    t5 = t.T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=40)
    tower = {"num_hidden_layers": 1, **SMALL}
    clip = t.CLIPConfig(
        text_config={**tower, "max_position_embeddings": 24, "projection_dim": 16, "eos_token_id": 2},
        vision_config={**tower, "image_size": 8, "patch_size": 4, "projection_dim": 16},
        projection_dim=16,
    )
    return {"gpt2": gpt2, "albert": albert, "roberta": roberta, "xlnet": xlnet, "t5": t5, "clip": clip}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    made = models_of_many_kinds()
    return {name: saved_model(tmp_path_factory.mktemp(name), config) for name, config in made.items()}


def rows_of(model, hook, tmp_path, text="sparse", **settings):
    (tmp_path / "a.txt").write_text(text)
    settings = {"context": 16, "dtype": "float32", "max_norm": None} | settings
    harvest(model, [f"{tmp_path}/a.txt"], [hook], str(tmp_path / "out"), **settings)
    return read(tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "hook"),
    [
        ("gpt2", "h.0"),
        ("roberta", "encoder.layer.1"),
        ("t5", "encoder.block.0"),
        ("clip", "text_model.encoder.layers.0"),
        ("albert", "encoder.albert_layer_groups.0.albert_layers.0"),
    ],
)
def test_models_of_many_kinds_are_harvested(kind, hook, kinds, tmp_path, capsys):
    x, columns = rows_of(kinds[kind], hook, tmp_path)
    assert x.shape == (6, 16)
    assert columns["token_ids"].tolist() == [3 + ord(letter) - ord("a") for letter in "sparse"]
    applied = ("runs 3 times in a pass: what it puts out first is stored" in capsys.readouterr().out, kind == "albert")
    assert applied[0] == applied[1]


@pytest.mark.parametrize(
    ("kind", "hook", "settings", "line"),
    [
        ("gpt2", "wpe", {}, r"module 'wpe' puts out a tensor of shape \(1, 16, 16\) for 2 windows of 16 tokens"),
        ("gpt2", "h.0", {"context": 25}, r"context must be in \[1, 24\]"),
        ("roberta", "encoder.layer.0", {"context": 25}, r"context must be in \[1, 24\]"),
        ("xlnet", "layer.0", {}, r"puts out a tensor of shape \(16, 2, 16\) for 2 windows of 16 tokens; hook one"),
        ("clip", "vision_model.encoder.layers.0", {}, "cannot load model .*preprocessor_config"),
    ],
)
def test_what_cannot_be_harvested_is_one_line(kind, hook, settings, line, kinds, tmp_path):
    with pytest.raises(UserError, match=line) as caught:
        rows_of(kinds[kind], hook, tmp_path, **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_roberta_takes_as_many_tokens_as_it_has_positions(kinds, tmp_path):
    x, _ = rows_of(kinds["roberta"], "encoder.layer.1", tmp_path, text="abc" * 30, context=24)
    assert len(x) == 90


def test_special_tokens_written_in_a_text_are_text(kinds, tmp_path):
    _, columns = rows_of(kinds["gpt2"], "h.0", tmp_path, text="a<end>b")
    assert columns["token_ids"].tolist()[1:-1] == [29, 7, 16, 6, 30]
    (tmp_path / "asked").mkdir()
    _, columns = rows_of(kinds["gpt2"], "h.0", tmp_path / "asked", text="a<end>b", special_in_text=True, drop_special=False)
    assert columns["token_ids"].tolist() == [3, 2, 4]


def test_a_byte_order_mark_is_no_text(kinds, tmp_path):
    _, columns = rows_of(kinds["gpt2"], "h.0", tmp_path, text="\ufeffab")
    assert columns["token_ids"].tolist() == [3, 4]


def test_models_with_code_of_their_own_are_refused(tmp_path):
    pytest.importorskip("transformers")
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}')
    (own / "mine.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(UserError, match=r"cannot load model .*own': .*custom code") as caught:
        rows_of(str(own), "layers.0", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_nowhere_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    # A hub at which nobody answers.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    for model, line in (("no/such-model", r"cannot load model 'no/such-model': .*[^.]; give"), ("./here", "no such folder")):
        with pytest.raises(UserError, match=line):
            rows_of(model, "layers.0", tmp_path)
    assert time.monotonic() - began < 10
