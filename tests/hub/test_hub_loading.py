"""SAEs from a hub by name: no more is downloaded than they are made of, once, and all of it or nothing is read."""

import contextlib
import shutil

import pytest
import torch

import saelight
from saelight.convert import write
from tests.support.commands import saelight_
from tests.support.conversions import CONFIGS, rows, trained
from tests.support.hub_repositories import USER
from tests.support.hub_server import standing_in


@pytest.fixture
def folder(tmp_path):
    """What somebody has published: two SAEs of a run among other things."""
    for name in ("topk", "relu"):
        write(trained(CONFIGS[name]), tmp_path / "published" / "saes" / name)
    (tmp_path / "published" / "README.md").write_text("# SAEs")
    (tmp_path / "published" / "saes" / "topk" / "notes.bin").write_bytes(b"large")
    return tmp_path / "published"


def test_only_the_files_of_the_sae_come_and_only_once(hub, folder, capsys):
    hub.publish("u/r", folder)
    sae = saelight.load("hf://u/r/saes/topk")
    assert torch.equal(sae(rows()), saelight.load(folder / "saes" / "topk")(rows()))
    assert hub.count("GET", "/resolve/") == 2
    assert hub.count("GET", "/api/models/u/r/tree") == 2  # one listing, of two pages
    asked = len(hub.asked)
    saelight.load("hf://u/r/saes/topk")
    assert hub.asked[asked:] == [("GET", "/api/models/u/r")]
    assert capsys.readouterr().err == ""  # no bar of what is quick


def test_where_it_came_from_goes_along_and_back(hub, folder, tmp_path):
    head = hub.publish("u/r", folder).branches["main"]
    assert saelight_("convert", "hf://u/r/saes/topk", "lens", "--to", "sae_lens") == 0
    place = f"hf://u/r@{head}/saes/topk"
    assert saelight.load("lens").provenance.source["downloaded_from"] == place
    assert torch.equal(saelight.load(place)(rows()), saelight.load("hf://u/r/saes/topk")(rows()))


@pytest.mark.parametrize("revision", ["old", "v/1", "{}"])
def test_a_revision_is_a_branch_a_tag_or_a_commit(revision, hub, folder):
    repo = hub.publish("u/r", folder)
    first = repo.branches["old"] = repo.tags["v/1"] = repo.branches["main"]
    other = saelight.load(folder / "saes" / "relu")
    repo.commit("main", {"sae/" + name: (folder / "saes" / "relu" / name).read_bytes() for name in FILES})
    now = saelight.load("hf://u/r")  # the only one
    assert torch.equal(now(rows()), other(rows()))
    assert (now.provenance.name, other.provenance.name) == ("a", "a")
    before = saelight.load(f"hf://u/r@{revision.format(first).replace('/', '%2F')}/saes/topk")
    assert not torch.equal(before(rows()), now(rows()))


FILES = ("config.json", "sae.safetensors")


def test_at_a_repositorys_root_it_has_the_repositorys_name(hub, tmp_path):
    write(trained(CONFIGS["relu"]), tmp_path / "x", to="dictionary_learning")
    (tmp_path / "x" / "saelight.json").unlink()
    hub.publish("u/relu-on-pythia", tmp_path / "x")
    assert saelight.load("hf://u/relu-on-pythia").provenance.name == "relu-on-pythia"


def test_pages_addresses_and_paths_mean_the_same(hub, folder, tmp_path):
    hub.publish("u/r", folder)
    expected = saelight.load("hf://u/r/saes/relu")(rows())
    for name in ("https://huggingface.co/u/r/tree/main/saes/relu", "hf://models/u/r/saes/relu/", "hf:/u/r/saes/relu"):
        assert torch.equal(saelight.load(name)(rows()), expected)


def test_all_that_is_there_is_converted_but_what_is_left_out(hub, folder, capsys):
    hub.publish("u/r", folder)
    assert saelight_("convert", "hf://u/r", "out", "--to", "saelight", "--leave-out", "relu") == 0
    assert hub.count("GET", "/resolve/") == 2
    assert saelight_("convert", "hf://u/r", "both", "--to", "sae_lens") == 0
    assert torch.equal(saelight.load("out/topk")(rows()), saelight.load("hf://u/r/saes/topk")(rows()))
    assert saelight.load("both/relu").provenance.source["downloaded_from"].endswith("/saes/relu")


def test_without_a_network_what_is_in_the_cache_is_read(cache, folder):
    with standing_in(cache) as hub:
        hub.publish("u/r", folder)
        expected = saelight.load("hf://u/r/saes/relu")
    with standing_in(cache) as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        again = saelight.load("hf://u/r/saes/relu")
        assert again.provenance == expected.provenance
        with pytest.raises(saelight.UserError, match=r"hf://u/r/saes/topk: http://127.0.0.1:9 does not answer"):
            saelight.load("hf://u/r/saes/topk")
        assert hub.asked == []


def test_a_copy_that_is_not_whole_is_not_read(cache, folder):
    with standing_in(cache) as hub:
        hub.publish("u/r", folder)
        saelight.load("hf://u/r/saes/relu")
    (there,) = cache.glob("models--u--r/snapshots/*/saes/relu/sae.safetensors")
    there.unlink()
    with standing_in(cache), pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(saelight.UserError, match="does not answer"):
            saelight.load("hf://u/r/saes/relu")


@pytest.mark.slow  # huggingface_hub tries again five times
def test_a_download_that_is_cut_off_is_none_and_goes_on_later(hub, folder):
    hub.publish("u/r", folder)
    hub.cuts_downloads_at = 3000
    with pytest.raises(saelight.UserError, match=r"hf://u/r/saes/topk: .* does not answer \(RemoteProtocolError.*is kept"):
        saelight.load("hf://u/r/saes/topk")
    hub.cuts_downloads_at = None
    assert torch.equal(saelight.load("hf://u/r/saes/topk")(rows()), saelight.load(folder / "saes" / "topk")(rows()))


def test_private_ones_open_with_the_logins_token(cache, folder):
    with standing_in(cache, token=None) as hub:
        hub.publish(f"{USER}/r", folder, private=True)
        with pytest.raises(saelight.UserError, match="if it is private, log in"):
            saelight.load(f"hf://{USER}/r/saes/relu")
        (cache / "token").write_text("hf_readersSecret\n")
        saelight.load(f"hf://{USER}/r/saes/relu")


def test_a_folder_that_holds_one_sae_is_that_sae(folder):
    shutil.rmtree(folder / "saes" / "relu")
    with contextlib.chdir(folder):
        assert torch.equal(saelight.load(".")(rows()), saelight.load("saes/topk")(rows()))
