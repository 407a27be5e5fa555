"""Folders of other libraries, damaged at random: an SAE or one line, never anything else."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import saelight
from saelight.convert import convert, read, write
from tests.support.conversions import CONFIGS, D, trained

NUMBERS = [-1, 0, 1, 41, 10**30, 1.5, -0.0, float("nan"), float("inf")]
VALUES = [*NUMBERS, None, True, "", "x", "16", [], [1], {}, {"k": 1}, "a\nb", "\ud800"]
TENSORS = [
    torch.tensor(3),
    torch.zeros(0),
    torch.zeros(2, 3, 4),
    torch.full((40,), torch.nan),
    torch.full((40,), torch.inf),
    torch.zeros(40, dtype=torch.int8),
    torch.zeros(16, dtype=torch.bool),
    torch.zeros(16, dtype=torch.complex64),
    torch.zeros(16, dtype=torch.float64),
    torch.full((16, 40), 1e20),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    for to in ("sae_lens", "dictionary_learning", "sparsify", "openmoss"):
        for name in ("topk", "jump_relu", "gated", "matryoshka_batch_topk"):
            try:
                write(trained(CONFIGS[name]), folder / f"{to}-{name}", to=to)
            except saelight.UserError:
                continue
    write(trained(CONFIGS["jump_relu"], d_out=D, layer=0), folder / "circuit", to="circuit_tracer")
    write(trained(CONFIGS["relu"], d_out=D), folder / "transcoder", to="sae_lens")
    return folder


def places(value: object, path: tuple = ()):
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def damage(folder: Path, rng: random.Random) -> str:
    """Change something in a folder; what."""
    file = rng.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    data = file.read_bytes()
    how = rng.choice(["cut", "flip", "gone", "folder", "value", "tensor"])
    if how == "cut":
        file.write_bytes(data[: rng.randrange(len(data))])
    elif how == "flip":
        i = rng.randrange(min(len(data), 2000))
        file.write_bytes(data[:i] + bytes([rng.randrange(256)]) + data[i + 1 :])
    elif how == "gone":
        file.unlink()
    elif how == "folder":
        file.unlink()
        file.mkdir()
    elif how == "value" and file.suffix == ".json":
        content = json.loads(data)
        *path, last = rng.choice([place for place in places(content) if place])
        inner = content
        for key in path:
            inner = inner[key]
        inner[last] = value = rng.choice(VALUES)
        file.write_text(json.dumps(content))
        return f"{file.name}: {[*path, last]} is {value!r}"
    elif how == "tensor" and file.suffix in (".safetensors", ".pt"):
        tensors = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
        name, tensor = rng.choice(sorted(tensors)), rng.choice([None, *TENSORS])
        tensors = {key: value for key, value in (tensors | {name: tensor}).items() if value is not None}
        save_file(tensors, file) if file.suffix == ".safetensors" else torch.save(tensors, file)
        return f"{file.name}: {name} is {None if tensor is None else (tensor.dtype, tensor.shape)}"
    return f"{file.name}: {how}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_damage_gives_an_sae_or_one_line(seed, good, tmp_path):
    rng = random.Random(seed)
    for i in range(60):
        folder = shutil.copytree(rng.choice(sorted(good.iterdir())), tmp_path / str(i))
        what = damage(folder, rng)
        path = folder / "layer_0.safetensors" if (folder / "layer_0.safetensors").exists() else folder
        try:
            sae = read(path)
        except saelight.UserError as error:
            message = str(error)
            assert "\n" not in message, what
            assert len(message) < 900, what
            with pytest.raises(saelight.UserError):
                convert(path, tmp_path / "out", to="saelight")
            assert not (tmp_path / "out").exists(), what
        else:
            assert sae.encode(torch.zeros(2, sae.d_in)).isfinite().all(), what
            # What is read can be written, whatever its origin says, unless norms are so large that they cannot be folded.
            for to in ("saelight", "sae_lens"):
                out = tmp_path / "written" / f"{i}-{to}"
                try:
                    convert(path, out, to=to)
                except saelight.UserError as error:
                    message = str(error)
                    assert "as the format has it: " in message
                    assert not out.exists()
                else:
                    read(out)
