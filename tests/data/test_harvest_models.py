"""Harvest of models of many kinds, tiny and in folders, as people have them: each works, or is one line that says why."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from saelight.cli import shard_commands
from saelight.data.harvest import window_batches
from saelight.data.harvest.harvester import harvest
from saelight.data.shards.reader import ShardedRows
from saelight.errors import UserError
from tests.data.folders import read
from tests.support.tiny_models import saved_model


def models_of_many_kinds():
    t = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 40}
    layers = {"num_hidden_layers": 2, **small}
    gpt2 = t.GPT2Config(n_embd=16, n_head=2, n_layer=2, vocab_size=40, n_positions=24)
    albert = t.AlbertConfig(embedding_size=16, max_position_embeddings=24, **(layers | {"num_hidden_layers": 3}))
    roberta = t.RobertaConfig(max_position_embeddings=26, pad_token_id=1, type_vocab_size=1, **layers)
    xlnet = t.XLNetConfig(d_model=16, n_head=2, n_layer=2, d_inner=32, vocab_size=40)
    t5 = t.T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=40)
    tower = {"num_hidden_layers": 1, **small}
    clip = t.CLIPConfig(
        text_config={**tower, "max_position_embeddings": 24, "projection_dim": 16, "eos_token_id": 2},
        vision_config={**tower, "image_size": 8, "patch_size": 4, "projection_dim": 16},
        projection_dim=16,
    )
    llama = t.LlamaConfig(**layers)
    return {"llama": llama, "gpt2": gpt2, "albert": albert, "roberta": roberta, "xlnet": xlnet, "t5": t5, "clip": clip}


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
        ("gpt2", "h.0", {"image_tokens": ["cls"]}, "image_tokens is of models of images, and this one reads text; drop"),
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
    with pytest.raises(
        UserError, match=r"cannot load model .*own': .*custom code.*; set trust_remote_code: true to run it"
    ) as caught:
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


def test_token_ids_pass_as_they_are(kinds, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"input_ids": [3, 2, 4, 5]}\n{"input_ids": [7]}\n')
    settings = {"context": 3, "dtype": "float32", "max_norm": None}
    harvest(kinds["gpt2"], [f"{tmp_path}/a.jsonl"], ["h.0"], str(tmp_path / "all"), drop_special=False, **settings)
    x, columns = read(tmp_path / "all")
    assert columns["token_ids"].tolist() == [3, 2, 4, 5, 7]
    assert columns["positions"].tolist() == [0, 1, 2, 0, 0]
    assert columns["document_ids"].tolist() == [0, 0, 0, 0, 1]
    # The token 2 is one that this tokenizer may add.
    harvest(kinds["gpt2"], [f"{tmp_path}/a.jsonl"], ["h.0"], str(tmp_path / "ordinary"), **settings)
    y, columns = read(tmp_path / "ordinary")
    assert columns["positions"].tolist() == [0, 2, 0, 0]
    assert y.equal(x[[0, 2, 3, 4]])
    (tmp_path / "b.jsonl").write_text('{"input_ids": [3, 31]}\n')
    with pytest.raises(UserError, match=r"document 0 has token id 31, and model .* has ids from 0 to 30; it was cut by"):
        harvest(kinds["gpt2"], [f"{tmp_path}/b.jsonl"], ["h.0"], str(tmp_path / "out"), **settings)


def test_without_a_tokenizer_token_ids_are_read_and_text_is_refused(kinds, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((Path(kinds["gpt2"]) / name).read_bytes())
    (tmp_path / "a.jsonl").write_text('{"input_ids": [3, 39]}\n')
    harvest(str(bare), [f"{tmp_path}/a.jsonl"], ["h.0"], str(tmp_path / "ids"), context=16, max_norm=None)
    assert read(tmp_path / "ids")[1]["token_ids"].tolist() == [3, 39]
    with pytest.raises(
        UserError, match=r"bare' has no tokenizer for text \(there is no tokenizer.json in .*\); name one with"
    ):
        rows_of(str(bare), "h.0", tmp_path)
    _, columns = rows_of(str(bare), "h.0", tmp_path, tokenizer=kinds["gpt2"])
    assert columns["token_ids"].tolist() == [3 + ord(letter) - ord("a") for letter in "sparse"]


def test_many_hooks_give_the_same_rows_in_less_memory(kinds, tmp_path, monkeypatch):
    hooks = ["blocks.0.hook_resid_post", "model.layers.1.mlp.input"]
    for name, size in (("much", window_batches._BYTES), ("little", 1)):
        monkeypatch.setattr(window_batches, "_BYTES", size)
        (tmp_path / "a.txt").write_text("sparse" * 60)
        harvest(kinds["llama"], [f"{tmp_path}/a.txt"], hooks, str(tmp_path / name), context=5, batch_size=2, dtype="float32")
    for hook, place in zip(hooks, ("layers.0", hooks[1]), strict=True):
        rows = [read(tmp_path / name / hook) for name in ("much", "little")]
        assert torch.allclose(rows[0][0], rows[1][0], atol=1e-6)
        assert rows[0][1]["token_ids"].equal(rows[1][1]["token_ids"])
        assert ShardedRows(tmp_path / "much" / hook).metadata["hook"] == place


OWN = """
import torch

def make():
    return torch.nn.Sequential(torch.nn.Embedding(40, 8), torch.nn.Tanh())

def made_of_nothing():
    return 3

def failing():
    raise RuntimeError("no weights\\nhere")

name = "no function"
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_text.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_module_of_ones_own(own, kinds, tmp_path):
    x, columns = rows_of("own_text:make", "1", tmp_path, tokenizer=kinds["gpt2"])
    assert x.shape == (6, 8)
    assert columns["token_ids"][0] == 3 + ord("s") - ord("a")


@pytest.mark.parametrize(
    ("model", "settings", "line"),
    [
        (
            "no_such_module:make",
            {},
            r"cannot import no_such_module for .* \(ModuleNotFoundError: .*\); is it on PYTHONPATH\?",
        ),
        ("own_text:mak", {}, "own_text has no function 'mak' to make a model; did you mean 'make'"),
        ("own_text:name", {}, "own_text has no function 'name' to make a model"),
        ("own_text:failing", {}, r"own_text:failing\(\) failed: RuntimeError: no weights here; mend it"),
        ("own_text:made_of_nothing", {}, "returned int and NoneType; return a torch.nn.Module"),
        ("own_text:make", {"revision": "main"}, "`revision` is not for own_text:make, which makes its model as it likes"),
        ("own_text:make", {}, r"has no tokenizer for text \(own_text:make returns none\); name one with `tokenizer`"),
        ("GPT2", {"attention": "nonsense"}, "cannot load model .*attn_implementation=.nonsense.. is not supported"),
        ("GPT2", {"revision": "main"}, "revision 'main' is of a model on the hub, and .* is a folder; drop `revision`"),
        ("GPT2", {"device": "gpu"}, "cannot go to device 'gpu': .*; `saelight devices` lists what is here"),
        ("none.gguf", {}, "there is no file none.gguf; give one, or OWNER/NAME/FILE.gguf|takes gguf and accelerate"),
    ],
)
def test_models_that_cannot_be_had_get_one_line(model, settings, line, own, kinds, tmp_path):
    with pytest.raises(UserError, match=line) as caught:
        rows_of(kinds["gpt2"] if model == "GPT2" else model, "0", tmp_path, **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


TRUSTED = """
import torch
from transformers import PretrainedConfig, PreTrainedModel

class MineConfig(PretrainedConfig):
    model_type = "mine"

class Mine(PreTrainedModel):
    config_class = MineConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = torch.nn.Embedding(40, 8)
        self.post_init()

    def forward(self, input_ids, **others):
        return self.embed(input_ids)
"""


def test_a_model_with_code_of_its_own_that_is_trusted(kinds, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    # Where transformers puts the code that it runs.
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", list(sys.path))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "code_of_mine.py").write_text(TRUSTED)
    auto_map = {"AutoConfig": "code_of_mine.MineConfig", "AutoModel": "code_of_mine.Mine"}
    (mine / "config.json").write_text(json.dumps({"model_type": "mine", "vocab_size": 40, "auto_map": auto_map}))
    weight = torch.randn(40, 8)
    save_file({"embed.weight": weight}, mine / "model.safetensors", metadata={"format": "pt"})
    x, columns = rows_of(str(mine), "embed", tmp_path, tokenizer=kinds["gpt2"], trust_remote_code=True)
    assert torch.equal(x, weight[columns["token_ids"].long()])


def test_the_command_takes_all_settings_and_explains_them(capsys):
    with pytest.raises(SystemExit) as end:
        shard_commands.run(["harvest", "--help"])
    assert end.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("--trust_remote_code {true,false} Run Python code that comes with the model.", "blocks.3.hook_resid_post"):
        assert words in said
    with pytest.raises(SystemExit):
        shard_commands.run(["harvest", "--model=m", "--files=[a]", "--hooks=[h]", "--out=o", "--image_tokens=[patches]"])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "expected one of patch, cls, got patches" in line
