"""What a hub refuses, and what is no name on one: one line each, and nothing is written."""

import random
from pathlib import Path

import pytest

import saelight
from saelight.convert import write
from tests.support.commands import refused
from tests.support.conversions import CONFIGS, trained
from tests.support.hub_repositories import READER, USER
from tests.support.hub_server import standing_in


@pytest.fixture
def published(hub, tmp_path):
    """A repository with an SAE, one without, and one of those who have to be asked."""
    write(trained(CONFIGS["relu"]), tmp_path / "p" / "layer_3" / "relu")
    write(trained(CONFIGS["topk"]), tmp_path / "p" / "layer_3" / "topk")
    hub.publish("u/r", tmp_path / "p")
    hub.publish("u/gated", tmp_path / "p", gated=True)
    hub.publish("u/model", {"model.safetensors": b"", "config.json": b"{}", "tokenizer/vocab.json": b"{}"})
    hub.publish("u/plain", {"README.md": b"# nothing"})
    hub.publish("u/broken", {"a/config.json": b"{", "a/sae.safetensors": b"x"})
    hub.publish("u/odd", {"a/x.pth": b"no tensors"})
    return hub


NAMES = {
    "hf://u/nowhere": "shows no model repository u/nowhere: mind the spelling; if it is private, log in by `hf auth login`",
    "hf://u/r": "holds no trained SAE itself, but 2 inside (layer_3/relu, layer_3/topk): give the path of one",
    "hf://u/r/layer_4": "there is no such file or folder in u/r; folders there: layer_3; did you mean 'layer_3'?",
    "hf://u/r/layer_3/rulu": "there is no such file or folder in u/r; folders there: layer_3",
    "hf://u/r@v2/layer_3/relu": "u/r has no revision 'v2': it has main, and its commits",
    f"hf://u/r@{'0' * 40}/layer_3/relu": f"u/r has no revision '{'0' * 40}'",
    "hf://u/gated/layer_3/relu": "u/gated is gated: ask for access at",
    "hf://u/model": "holds no trained SAE of a known format; those read are saelight, sae_lens",
    "hf://u/model/tokenizer": "holds no trained SAE of a known format; those read are saelight, sae_lens",
    "hf://u/plain": "holds no trained SAE of a known format",
    "hf://u/broken/a": "config.json is no JSON",
    "hf://u/odd/a/x.pth": "holds no trained SAE of a known format",
    "hf://u": "hf://u is no place on a hub: write hf://user/repo",
    "hf://": "is no place on a hub: write hf://user/repo",
    "hf://u/r/../x": "is no place in a repository",
    "hf://u r/x": "is no place on a hub",
    "hf://u/r@": "is no place on a hub",
    "hf://u/r//x": "is no place on a hub",
    "hf://buckets/u/r": "is no place in a repository",
    "hf://datasets/u/r": "shows no dataset repository u/r",
    "https://example.org/u/r": "is no place on a hub",
    "s3://bucket/sae": "is not on this machine: give a path on it, or hf://user/repo/path",
    "hf://u/r\0": "is no place on a hub",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_gives_no_sae(name, published, capsys):
    with pytest.raises(saelight.UserError) as error:
        saelight.load(name)
    assert NAMES[name] in str(error.value)
    if "\0" not in name and name != "hf://u/r":
        assert NAMES[name] in refused(capsys, "convert", name, "out", "--to", "sae_lens")
    assert not Path("out").exists()


ANSWERS = {
    400: "refuses hf://u/r (BadRequestError",
    401: "does not know you, or your token is no longer valid",
    403: "your token may not read model repository u/r",
    404: "shows no model repository u/r",
    429: "has had too many requests of you: try again later",
    500: "has a fault of its own (500): try again later",
}


@pytest.mark.parametrize("status", ANSWERS)
def test_an_answer_of_the_hub(status, hub):
    hub.broken = status
    with pytest.raises(saelight.UserError) as error:
        saelight.load("hf://u/r")
    assert ANSWERS[status] in str(error.value)
    assert "\n" not in str(error.value)


def test_who_is_nobody_or_may_not_write_shares_nothing(saes, cache, capsys):
    lines = {
        None: "does not know you, or your token is no longer valid: log in by `hf auth login`, or set HF_TOKEN",
        "hf_expired": "does not know you, or your token is no longer valid",
        READER: f"your token may not write to model repository {USER}/saes: give it that right",
    }
    for token, line in lines.items():
        with standing_in(cache, token) as hub:
            said = refused(capsys, "push", str(saes), f"{USER}/saes")
            assert line in said
            assert not token or token not in said
            assert not hub.repos


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["saes"], "hf://saes is no place on a hub: write hf://user/repo"),
        (["user/a b"], "is no place on a hub"),
        (["datasets/user/x"], "is a dataset's repository: SAEs are shared in those of models"),
        (["somebody/else"], "may not write to model repository somebody/else"),
        (["user/new@next"], "there is no repository user/new yet, and so no next: push to user/new first"),
        (["user/there@next", "--public"], "user/there has no revision 'next': it has main, and its commits"),
        (["user/x", "--as", "sparsify"], "batch: BatchTopK has no form in sparsify"),
        (["user/x", "--as", "sealens"], "invalid choice: 'sealens'"),
        (["user/x", "--leave-out", "tap"], "holds no SAE 'tap' to leave out; did you mean 'top'?"),
    ],
)
def test_a_push_that_is_refused(arguments, line, saes, hub, capsys):
    hub.publish("user/there", {"README.md": b""})
    assert line in refused(capsys, "push", str(saes), *arguments)
    assert hub.repos.keys() == {"user/there"}
    assert len(hub.repos["user/there"].commits) == 1


def test_a_folder_that_cannot_be_shared(hub, tmp_path, capsys):
    write(trained(CONFIGS["relu"]), tmp_path / "run" / "saes" / "good")
    write(trained(CONFIGS["topk"]), tmp_path / "run" / "saes" / "bad")
    (tmp_path / "run" / "saes" / "bad" / "sae.safetensors").write_bytes(b"half")
    line = refused(capsys, "push", "run", f"{USER}/x")
    assert "not as it was written" in line or "cannot be read" in line
    assert line.endswith("--leave-out bad shares the others")
    for folder, says in {"nowhere": "there is no such file or folder", "hf://a/b": "is on a hub already"}.items():
        assert says in refused(capsys, "push", folder, f"{USER}/x")
    assert not hub.repos


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(saelight.UserError, match=r"needs huggingface_hub: pip install 'saelight\[hub\]'"):
        saelight.load("hf://u/r")


@pytest.mark.parametrize("token", ["hf_secrét", "hf_sec ret", "hf_se\x01cret"])
def test_what_is_no_token_is_not_said(token, saes, cache, capsys):
    with standing_in(cache, token) as hub:
        line = refused(capsys, "push", str(saes), f"{USER}/x")
        assert "what is in HF_TOKEN, or in the login's file, is no token" in line
        assert token not in line
        assert hub.asked == []


@pytest.mark.parametrize("address", ["nonsense", "http://", "http://127.0.0.1:99999", "https://[::1", "{}/other/page"])
def test_an_address_that_is_no_hubs(address, hub, saes, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", address.format(hub.url))
        for command in (["convert", "hf://u/r", "out", "--to", "saelight"], ["push", str(saes), f"{USER}/x"]):
            assert len(refused(capsys, *command)) < 400
    assert not hub.repos


def test_a_page_that_is_none_of_a_hubs(hub):
    hub.broken = 200
    with pytest.raises(saelight.UserError, match=r"hf://u/r: http://127.* answers as no hub does \("):
        saelight.load("hf://u/r")


def test_nothing_is_written_to_a_hub_by_convert(capsys, saes):
    assert "`saelight push` shares" in refused(capsys, "convert", str(saes), "hf://u/r", "--to", "saelight")


@pytest.mark.slow
def test_whatever_is_written_after_the_scheme_is_one_line_or_an_sae(published):
    rng = random.Random(15)
    often = ["u", "r", "gated", "layer_3", "relu", "topk", "@", "main", *"//////"]
    seldom = ["//", "..", "%2F", " ", "é", "\0", "*", "[a]", "refs/pr/1", "datasets", "@@", "?", "#", "hf://", "~", "\n"]
    names = ["hf://" + "".join(rng.choices([*often, *often, *seldom], k=rng.randint(0, 9))) for _ in range(300)]
    lines = []
    for name in [*names, "hf://u/r/layer_3/relu"]:
        try:
            saelight.load(name)
        except saelight.UserError as error:
            lines.append(str(error))
    assert len(lines) < 301
    assert [line for line in lines if "\n" in line or len(line) > 600] == []
