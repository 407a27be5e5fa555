"""SAE folders from elsewhere: whatever was done to one, one line says what is wrong, and nothing is taken for an SAE."""

import contextlib
import json
import math
import os
import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import saelight
from saelight.convert import starts
from saelight.ops.normalisation import Normalisation
from saelight.run import export
from saelight.saes.sae_folder import Description
from tests.support.variants import VARIANTS

CONFIG, WEIGHTS = "config.json", "sae.safetensors"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """An SAE's folder that nobody vouches for: what is changed in it is found by what it says."""
    folder = tmp_path_factory.mktemp("good") / "a"
    facts = {"name": "a", "seed": 1, "source": {}, "training": {"state": "finished"}}
    export.write(VARIANTS["topk"].build(16, seed=1), folder, normalisation=Normalisation("rms", 0.5), **facts)
    described = json.loads((folder / CONFIG).read_text())
    del described["sha256"]
    (folder / CONFIG).write_text(json.dumps(described))
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "a")


def line(folder: Path, **settings) -> str:
    """The one line that a folder is refused by."""
    with pytest.raises(saelight.UserError) as refused:
        saelight.load(folder, **settings)
    message = str(refused.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


def edit(folder: Path, changes: dict) -> None:
    """Set keys of the config, dotted ones in the objects inside; `...` takes one away."""
    config = json.loads((folder / CONFIG).read_text())
    for key, value in changes.items():
        *path, last = key.split(".")
        inner = config
        for part in path:
            inner = inner[part]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
    (folder / CONFIG).write_text(json.dumps(config))


KEYS = [f.name for f in fields(Description) if f.name not in ("format", "version", "sha256")]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_missing_or_of_another_type_is_named(key, folder):
    edit(folder, {key: ...})
    assert re.search(rf"a/config.json does not describe an SAE: .*{key}", line(folder))
    for wrong in ([[1]], 1.5, True):
        edit(folder, {key: wrong})
        assert re.search("a/config.json does not describe an SAE: .*(expected|an SAE is written)", line(folder))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": None}, "is not a saelight-sae config"),
        ({"version": "1"}, "version: expected int, got '1'"),
        ({"version": None}, "version: expected int, got None"),
        ({"version": True}, "version: expected int, got True"),
        ({"version": 0}, "version: expected 1, got 0"),
        ({"version": 10**30}, "newer saelight"),
        ({"more": 1}, "has no field 'more'"),
        ({"d_in": 0}, "d_in must be at least 1"),
        ({"d_in": 17}, "does not fit config.json: W_dec: expected ('F32', [40, 17])"),
        ({"d_in": 10**30}, "can be built"),
        ({"d_in": math.nan}, "d_in: expected int, got nan"),
        ({"d_in": "16"}, "d_in: expected int, got '16'"),
        ({"d_sae": 41}, "d_sae is 41, but its fields make it 40"),
        ({"d_sae": 10**15, "init_args.d_sae": 10**15}, "d_sae must be at most"),
        ({"d_out": 3}, "does not fit config.json: W_dec"),
        ({"seed": 2**70}, "can be built"),
        ({"normalisation.scale": 0}, "scale 0.0 is not one"),
        ({"normalisation.scale": -1}, "scale -1.0 is not one"),
        ({"normalisation.scale": math.nan}, "scale nan is not one"),
        ({"normalisation.scale": math.inf}, "scale inf is not one"),
        ({"normalisation.scale": 1e-300}, "scale 1e-300 is not one"),
        ({"normalisation.scale": 10**400}, "normalisation.scale: expected float"),
        ({"normalisation.scale": "1"}, "normalisation.scale: expected float, got '1'"),
        ({"normalisation.scale": ...}, "needs normalisation.scale"),
        ({"normalisation.kind": "std"}, "normalisation.kind: expected one of standard, rms, none, got std"),
        ({"normalisation.kind": "none"}, "of kind none has scale 1"),
        ({"normalisation.kind": "standard"}, "does not fit config.json: normalisation.mean"),
        ({"normalisation": None}, "normalisation: expected Units, got None"),
        ({"target_normalisation": {"kind": "rms", "scale": 0.5}}, "a transcoder's"),
        ({"class_path": "os.system"}, "no SAE class 'os.system' is imported"),
        ({"class_path": "evilmod\n.X"}, r"no SAE class"),
        ({"class_path": "x" * 10**5}, "no SAE class"),
        ({"init_args.k": 10**30}, "k = "),
        ({"init_args.k": "4"}, "k: expected int, got '4'"),
        ({"init_args.schedule": {"class_path": "evilmod.X"}}, "Schedule has no field 'class_path'"),
        ({"init_args.lr\n\ud800": 1}, "has no field"),
        ({"init_args": {"base": {}}}, "has no field 'base'"),
        ({"sha256": {}}, "is not as it was written"),
        ({"sha256": {CONFIG: "", WEIGHTS: ""}}, "is not as it was written"),
        ({"sha256": [1]}, "sha256: expected dict"),
    ],
)  # fmt: skip
def test_a_config_that_says_what_cannot_be_is_refused(changes, says, folder):
    edit(folder, changes)
    assert says in line(folder)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"null", b"[]", b"3", b'"a"', b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe\x00", b"\x80abc", b"9" * 5000],
    ids=range(11),
)
def test_a_config_that_is_none_is_refused(text, folder):
    (folder / CONFIG).write_bytes(text)
    assert re.search("cannot be read|is not a saelight-sae config", line(folder))


def nested(depth: int) -> dict:
    """Matryoshka in Matryoshka."""
    spec = {"class_path": "saelight.saes.matryoshka.Matryoshka", "init_args": {}}
    return spec if depth == 0 else spec | {"init_args": {"base": nested(depth - 1)}}


def test_nesting_without_end_is_refused(folder):
    edit(folder, nested(200))
    assert "does not describe an SAE" in line(folder)


def weights(folder: Path, **changed: torch.Tensor | None) -> None:
    """Write the weights anew, some of them changed or left out."""
    tensors = load_file(folder / WEIGHTS) | changed
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / WEIGHTS)


def header(folder: Path, old: bytes, new: bytes) -> None:
    """Replace in the weights' header."""
    data = (folder / WEIGHTS).read_bytes()
    assert old in data
    (folder / WEIGHTS).write_bytes(data.replace(old, new))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: header(f, b'"F32"', b'"I32"'), "W_dec: expected ('F32', [40, 16]), found ('I32', [40, 16])"),
        (lambda f: header(f, b"[40,16]", b"[16,40]"), "W_dec: expected"),
        (lambda f: header(f, b'"F32"', b'"F99"'), "cannot be read"),
        (lambda f: header(f, b'"W_dec"', b'"W_ded"'), "W_dec: expected ('F32', [40, 16]), found none"),
        (lambda f: weights(f, W_dec=None), "W_dec: expected ('F32', [40, 16]), found none"),
        (lambda f: weights(f, more=torch.zeros(1)), "more: expected none, found ('F32', [1])"),
        (lambda f: weights(f, b_enc=torch.zeros(41)), "b_enc: expected ('F32', [40]), found ('F32', [41])"),
        (lambda f: weights(f, b_enc=torch.zeros(40, dtype=torch.float64)), "found ('F64', [40])"),
        (lambda f: weights(f, b_enc=torch.zeros(40, dtype=torch.bfloat16)), "found ('BF16', [40])"),
        (lambda f: weights(f, b_enc=torch.full((40,), torch.nan)), "b_enc holds NaN or infinity"),
        (lambda f: weights(f, b_enc=torch.full((40,), torch.inf)), "b_enc holds NaN or infinity"),
        (lambda f: os.truncate(f / WEIGHTS, 4000), "cannot be read"),
        (lambda f: os.truncate(f / WEIGHTS, 7), "cannot be read"),
        (lambda f: os.truncate(f / WEIGHTS, 0), "cannot be read"),
        (lambda f: (f / WEIGHTS).write_bytes((2**62).to_bytes(8, "little") + b"{}"), "cannot be read"),
        (lambda f: (f / WEIGHTS).write_bytes((10**5).to_bytes(8, "little") + b"[" * 10**5), "cannot be read"),
        (lambda f: (f / WEIGHTS).write_bytes(b"PK\x03\x04" + bytes(500)), "cannot be read"),
    ],
)  # fmt: skip
def test_weights_that_are_not_the_configs_are_refused(damage, says, folder):
    damage(folder)
    assert says in line(folder)


def test_weights_that_are_not_finite_load_where_that_is_asked_for(folder):
    weights(folder, b_enc=torch.full((40,), torch.nan))
    assert "allow_nan=True" in line(folder)
    assert saelight.load(folder, allow_nan=True).b_enc.isnan().all()
    header(folder, b'"F32"', b'"I32"')
    assert "W_dec: expected" in line(folder, allow_nan=True)


def test_a_scale_that_takes_weights_out_of_range_is_refused(folder):
    weights(folder, W_enc=torch.full((16, 40), 1e25))
    edit(folder, {"normalisation.scale": 1e18})
    assert "normalisation folded in: W_enc holds NaN or infinity" in line(folder)
    assert saelight.load(folder, fold_normalisation=False).W_enc.isfinite().all()


def in_place(path: Path, how: str) -> None:
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "dangling":
        path.symlink_to("nowhere")
    elif how == "device":
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("how", ["folder", "pipe", "loop", "dangling", "device"])
@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_what_is_no_file_is_never_waited_for(file, how, folder):
    in_place(folder / file, how)
    assert re.search(f"holds no trained SAE: {file} is missing|cannot be read", line(folder))


@pytest.mark.parametrize("path", ["", "nowhere", "x" * 300, "nul\0", "a/config.json"])
def test_a_path_that_is_no_folder_is_refused(path, folder):
    with pytest.raises(saelight.UserError, match=r"holds no trained SAE|cannot be read"):
        saelight.load(path)


@contextlib.contextmanager
def nobody():
    """In this block the process may read nothing of others'."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody who may not read")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("closed", ["", CONFIG, WEIGHTS])
def test_permission_denied_is_one_line(closed, folder):
    for path in [folder, *folder.parents[:-2]]:
        path.chmod(0o755)
    (folder / closed).chmod(0)
    with nobody():
        assert re.search("cannot be read: .*[Pp]ermission denied", line(folder))


def test_a_start_is_checked_as_a_load_is(folder):
    starts.known(str(folder))
    edit(folder, {"normalisation.scale": 0})
    for read in (starts.known, starts.read):
        with pytest.raises(saelight.UserError, match=r"scale 0\.0 is not one"):
            read(str(folder))


def test_one_changed_byte_is_found(good, tmp_path):
    folder = tmp_path / "b"
    export.write(
        VARIANTS["relu"].build(4), folder, normalisation=Normalisation("rms", 0.5), name="b", seed=0, source={}, training={}
    )
    saelight.load(folder)
    for file, old, new in ((CONFIG, b'"seed": 0', b'"seed": 1'), (WEIGHTS, b"\x00\x00\x00\x00", b"\x01\x00\x00\x00")):
        whole = (folder / file).read_bytes()
        at = whole.rindex(old)
        (folder / file).write_bytes(whole[:at] + new + whole[at + len(old) :])
        assert f"{file} is not as it was written" in line(folder)
        (folder / file).write_bytes(whole)
    # Another spelling of the same content is no change.
    (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text())))
    saelight.load(folder)
