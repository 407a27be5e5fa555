"""`saelight push`: what comes to lie where, who may see it, its card; nothing is seen of a push that was cut off."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

import saelight
from saelight.convert import write
from saelight.hub import push, shared_saes
from saelight.hub.model_card import is_as_written
from saelight.run import evaluation_file
from tests.support.commands import refused, saelight_
from tests.support.conversions import CONFIGS, rows, trained
from tests.support.hub_repositories import USER, WRITER
from tests.support.hub_server import standing_in

REPO = f"{USER}/saes"
SET = ("config.yaml", "layer_0.safetensors", "layer_0.saelight.json")
NAMES = ("batch", "gates", "relu", "top")
MODEL = "EleutherAI/pythia-70m"
OWN = {f"{name}/{file}" for name in NAMES for file in ("config.json", "sae.safetensors")}


def test_a_run_goes_and_comes_back_as_it_was(run, hub, capsys):
    assert saelight_("push", str(run), REPO, "--public") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{hub.url}/{REPO}: 4 SAEs, public",
        f"load them, e.g., by saelight.load('hf://{REPO}/batch')",
    ]
    repo = hub.repos[REPO]
    assert not repo.private
    assert repo.files.keys() == OWN | {"README.md", "front.png", ".gitattributes"}
    assert len(repo.commits) == 2  # the repository's first, and all of this
    for name in NAMES:
        assert repo.files[f"{name}/sae.safetensors"] == (run / "saes" / name / "sae.safetensors").read_bytes()
    assert torch.equal(saelight.load(f"hf://{REPO}/top").W_dec, saelight.load(run / "saes" / "top").W_dec)
    assert repo.files["front.png"].startswith(b"\x89PNG")
    text = repo.files["README.md"].decode()
    card = ModelCard(text)
    assert (card.data.library_name, card.data.base_model, card.data.datasets) == ("saelight", [MODEL], ["some/text"])
    assert {"sparse-autoencoder", "saelight", "topk"} <= set(card.data.tags)
    assert hub.count("POST", "/api/validate-yaml") == 1
    assert "| `relu` | ReLU | 40 | 3 | 0.15 | 5.0 % |" in text
    for shown in ("4 sparse autoencoders on pythia-70m", "![", "hook in TransformerLens: `blocks.3.hook_mlp_out`", "  k: 4"):
        assert shown in text


def test_what_is_there_is_not_uploaded_again(saes, hub, capsys):
    assert push(saes, REPO).private
    asked, commits = len(hub.asked), len(hub.repos[REPO].commits)
    assert saelight_("push", str(saes), REPO) == 0
    assert f"{hub.url}/{REPO}: all of it is there already" in capsys.readouterr().out
    assert not [path for method, path in hub.asked[asked:] if method == "PUT"]
    assert len(hub.repos[REPO].commits) == commits


def test_a_push_that_is_cut_off_shows_nothing_and_goes_on(saes, hub, capsys):
    hub.uploads_until_it_fails = 2
    with pytest.raises(saelight.UserError, match="may not write"):
        push(saes, REPO)
    assert hub.repos[REPO].files.keys() == {".gitattributes"}
    arrived = hub.repos[REPO].large.keys()
    assert len(arrived) == 2
    hub.uploads_until_it_fails, before = None, hub.count("PUT", "/lfs/")
    assert push(saes, REPO).is_new
    assert hub.count("PUT", "/lfs/") - before == 4 - 2


@pytest.mark.parametrize("to", ["sae_lens", "dictionary_learning"])
def test_in_another_librarys_format(to, saes, hub, capsys):
    left_out = [] if to == "sae_lens" else ["--leave-out", "gates"]
    assert saelight_("push", str(saes), REPO, "--as", to, *left_out) == 0
    said = capsys.readouterr().out
    assert ("import saelight.convert.in_sae_lens" in said) == (to == "sae_lens")
    found = saelight.load(f"hf://{REPO}/top")
    assert torch.allclose(found(rows()), saelight.load(saes / "top")(rows()), atol=1e-5)
    card = hub.repos[REPO].files["README.md"].decode()
    assert ("from sae_lens import SAE" in card) == (to == "sae_lens")


def test_a_set_of_transcoders(tmp_path, hub):
    for layer in (0, 1):
        write(trained(CONFIGS["relu"], d_out=16, layer=layer), tmp_path / "set" / f"l{layer}")
    made = push(tmp_path / "set", f"{REPO}/clt", "circuit_tracer")
    assert "clt/layer_1.safetensors" in hub.repos[REPO].files
    assert made.saes == [f"hf://{REPO}/clt/layer_{i}.safetensors" for i in (0, 1)]
    assert saelight.load(made.saes[1]).is_transcoder
    assert 'saelight.load("hf://user/saes/clt/layer_0.safetensors")' in hub.repos[REPO].files["clt/README.md"].decode()


def test_foreign_folders_as_they_are(tmp_path, hub):
    write(trained(CONFIGS["topk"]), tmp_path / "saes" / "layers.3", to="sparsify")
    (tmp_path / "saes" / "config.json").write_text('{"model": "a/b"}')
    (tmp_path / "saes" / "state.pt").write_bytes(b"optimizer")
    write(trained(CONFIGS["relu"], d_out=16, layer=0), tmp_path / "saes" / "set", to="circuit_tracer")
    made = push(tmp_path / "saes", REPO)
    assert [saelight.load(name).is_transcoder for name in made.saes] == [False, True]
    assert saelight.load(push(tmp_path / "saes" / "set" / "layer_0.safetensors", f"{REPO}/one").saes[0]).is_transcoder
    assert hub.repos[REPO].files.keys() - {f"one/{name}" for name in ("README.md", *SET)} == {
        ".gitattributes",
        "README.md",
        "config.json",
        "layers.3/cfg.json",
        "layers.3/sae.safetensors",
        "layers.3/saelight.json",
        "set/config.yaml",
        "set/layer_0.safetensors",
        "set/layer_0.saelight.json",
    }


def test_one_alone_beside_others(run, hub):
    push(run / "saes" / "top", REPO)
    push(run / "saes" / "relu", f"hf://{REPO}/layer_3/relu")
    push(run / "saes" / "gates", REPO)
    assert {name.rpartition("/")[0] for name in hub.repos[REPO].files} == {"", "top", "layer_3/relu", "gates"}
    card = hub.repos[REPO].files["README.md"].decode()
    assert "| `gates` | HardConcrete | 40 |" in card  # with what its run says of it
    assert "`layer_3/relu`, `top`" in card.partition("## Also here")[2]


def test_what_a_source_says_is_text_on_the_card(tmp_path, hub):
    sae = trained(CONFIGS["relu"])
    assert sae.provenance is not None
    sae.provenance.source |= {"note": "x", "hook": "a|b`c\n---\n# no title <script>"}
    write(sae, tmp_path / "odd | name")
    push(tmp_path / "odd | name", f"{REPO}/x")
    card = ModelCard(hub.repos[REPO].files["x/README.md"].decode())
    assert "\n# no title" not in card.text
    assert "<script>" not in card.text.replace("`a|b'c --- # no title <script>`", "")


def test_a_card_that_somebody_has_changed_stays(saes, hub, capsys):
    push(saes, REPO)
    repo = hub.repos[REPO]
    written = repo.files["README.md"].decode()
    assert is_as_written(written)
    assert is_as_written(written.replace("\n", "\r\n"))
    changed = written.replace("# 4 sparse", "# My 4 sparse").encode()
    repo.commit("main", repo.files | {"README.md": changed})
    assert saelight_("push", str(saes), REPO, "--leave-out", "relu") == 0
    assert "README.md there is not as saelight wrote it, and stays: --new-card replaces it" in capsys.readouterr().out
    assert repo.files["README.md"] == changed
    assert saelight_("push", str(saes), REPO, "--new-card") == 0
    assert repo.files["README.md"].decode() == written


def test_a_branch_and_who_may_see_it(saes, hub, capsys):
    repo = hub.publish(REPO, {"README.md": b"# mine"}, private=True)
    repo.branches["next"] = repo.branches["main"]
    assert saelight_("push", str(saes), f"{REPO}@next", "--public", "--leave-out", "gates") == 0
    said = capsys.readouterr().out
    assert f"{hub.url}/{REPO}: 3 SAEs, private" in said
    assert "was private and stays so" in said
    assert repo.files.keys() == {"README.md"}
    assert saelight.load(f"hf://{REPO}@next/top").d_sae == 40
    repo.private = False
    assert f"{REPO} is public, and so is what is pushed to it" in refused(capsys, "push", str(saes), REPO)


def test_the_token_is_never_said(saes, hub, capsys):
    hub.uploads_until_it_fails = 0
    assert saelight_("push", str(saes), REPO) == 1
    hub.uploads_until_it_fails = None
    assert saelight_("push", str(saes), REPO) == 0
    said = "".join(capsys.readouterr())
    assert said
    assert WRITER not in said
    assert not any(WRITER.encode() in data for data in hub.repos[REPO].files.values())


@pytest.mark.slow  # processes of their own, from the environment alone
def test_a_push_that_is_killed_is_gone_on_with(saes, cache):
    with standing_in(cache) as hub:
        env = os.environ | {"HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "TMPDIR": str(cache)}
        command = [sys.executable, "-m", "saelight", "push", str(saes), REPO, "--as", "sae_lens"]
        hub.slow_uploads = 1.0
        started = subprocess.Popen(command, env=env)
        while not (hub.repos.get(REPO) and hub.repos[REPO].large):
            time.sleep(0.05)
            assert started.poll() is None
        started.send_signal(signal.SIGKILL)
        started.wait()
        arrived = set(hub.repos[REPO].large)
        assert hub.repos[REPO].files.keys() == {".gitattributes"}
        hub.slow_uploads, before = 0.0, hub.count("PUT", "/lfs/")
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert f"{hub.url}/{REPO}: 4 SAEs, private" in done.stdout
        assert hub.count("PUT", "/lfs/") - before <= 4 - len(arrived)
        code = f"import saelight; print(saelight.load('hf://{REPO}/top').d_sae)"
        loaded = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert loaded.stdout.strip() == "40"
        assert Path(cache, "hub").is_dir()


def test_what_was_found_out_about_an_sae_goes_along(saes, tmp_path, hub, monkeypatch):
    source = shutil.copytree(saes, tmp_path / "saes")
    evaluation_file.write(source / "top" / "evaluation.json", {"metrics": {"loss_recovered": 0.9876, "l0": 7.0}})
    for name in NAMES[2:]:
        (source / name / "latents").mkdir()
        for file in ("latents.json", "latents.safetensors", "tokens.json", "stray.txt"):
            (source / name / "latents" / file).write_bytes(b"1" * (80 if name == "top" else 10))
    monkeypatch.setattr(shared_saes, "_LARGEST_LATENTS", 100)
    made = push(source, REPO)
    files = hub.repos[REPO].files
    assert {name for name in files if name.startswith(("top/", "relu/"))} - OWN == {
        "top/evaluation.json",
        *(f"relu/latents/{file}" for file in ("latents.json", "latents.safetensors", "tokens.json")),
    }
    assert made.notes == [f"{source / 'top' / 'latents'} has 0 MB, more than 0, and stays here"]
    assert "| loss recovered |" in (card := files["README.md"].decode())
    assert "| `top` | TopK | 40 | 0.9876 |" in card
    assert made.saes == [f"hf://{REPO}/{name}" for name in NAMES]
    assert "## Also here" not in card
    assert saelight.load(made.saes[3]).d_sae == 40
