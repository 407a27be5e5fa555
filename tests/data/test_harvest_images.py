"""Harvest of vision towers on folders of images: rows are the model's own, of its patches and of [CLS]."""

import numpy as np
import pytest
import torch

from saelight.data.datamodule import ActivationDataModule
from saelight.data.harvest.harvester import harvest
from saelight.data.shards.reader import ShardedRows
from saelight.errors import UserError
from tests.data.folders import command, read
from tests.support.tiny_models import PATCH, PIXELS, SMALL, WIDTH, of_images, saved_vision

PATCHES = (PIXELS // PATCH) ** 2
REGISTERS = {"vit": 0, "clip_vision": 0, "dinov2": 3}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of five images, and of what else lies in such folders."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("pictures")
    gen = np.random.default_rng(0)
    (folder / "deep").mkdir()
    for name in ("a.png", "b.jpg", "c.webp", "deep/d.PNG"):
        image.fromarray(gen.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / name)
    image.fromarray(gen.integers(0, 255, (9, 9), dtype=np.uint8)).save(folder / "grey.png")
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png"}\n')
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:60])
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {kind: saved_vision(tmp_path_factory.mktemp(kind), of_images(kind)) for kind in (*REGISTERS, "siglip")}


def run(model, pictures, out, hook="blocks.1.hook_resid_post", **settings):
    harvest(model, [str(pictures)], [hook], str(out), **{"dtype": "float32", "max_norm": None, "batch_size": 2} | settings)
    return *read(out), ShardedRows(out).metadata


@pytest.mark.parametrize("kind", REGISTERS)
def test_rows_are_the_models_hidden_states(kind, models, pictures, tmp_path, capsys):
    import transformers
    from PIL import Image

    x, columns, meta = run(models[kind], pictures, tmp_path / "out", image_tokens=["patch", "cls"])
    assert "5 documents" in (said := capsys.readouterr().out)
    assert "(1 files were no images)" in said
    assert columns.keys() == {"positions", "document_ids", "norms"}
    first = 1 + REGISTERS[kind]
    assert meta["source"]["images"] == {"size": [PIXELS] * 2, "patches": [PIXELS // PATCH] * 2, "first_patch": first}
    assert columns["positions"].tolist() == [0, *range(first, first + PATCHES)] * 5
    assert columns["document_ids"].tolist() == [i for i in range(5) for _ in range(1 + PATCHES)]
    model = transformers.AutoModel.from_pretrained(models[kind]).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(models[kind], backend="pil")
    with Image.open(pictures / "b.jpg") as image, torch.inference_mode():
        states = model(**processor(images=image, return_tensors="pt"), output_hidden_states=True).hidden_states[-1][0]
    wanted = states[columns["positions"][: 1 + PATCHES].long()]
    assert any(torch.allclose(rows, wanted, atol=1e-5) for rows in x.view(5, 1 + PATCHES, WIDTH))


def test_one_kind_of_token_exactly_so_many_and_a_model_without_cls(models, pictures, tmp_path):
    x, columns, _ = run(models["siglip"], pictures, tmp_path / "all")
    assert (len(x), columns["positions"].max().item()) == (5 * PATCHES, PATCHES - 1)
    _, columns, _ = run(models["vit"], pictures, tmp_path / "cls", image_tokens=["cls"])
    assert columns["positions"].tolist() == [0] * 5
    x, columns, meta = run(
        models["vit"], pictures, tmp_path / "few", max_tokens=20, skip_positions=3, model_dtype="bfloat16"
    )
    assert columns["positions"].tolist() == [*range(3, 17), *range(3, 9)]
    assert meta["hook"] == "layers.1"
    data = ActivationDataModule(str(tmp_path / "all"), batch_size=8, val_fraction=0.3)
    assert data.opened.n_train_rows == 4 * PATCHES  # whole images are held out
    assert "checksums, finite values and sums hold" in command("verify", tmp_path / "few")


OWN = """
import numpy as np
import torch

class Patches(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.cls = torch.nn.Conv2d(3, 8, 4, 4), torch.nn.Parameter(torch.ones(1, 1, 8))
        self.last = torch.nn.Identity()
    def forward(self, pixels):
        patches = self.conv(pixels).flatten(2).transpose(1, 2)
        return self.last(torch.cat([self.cls.expand(len(patches), -1, -1), patches], 1))

def pixels(image):
    return torch.from_numpy(np.array(image.resize((16, 16)))).permute(2, 0, 1) / 255

def make():
    return Patches(), pixels

def uneven():
    return Patches(), lambda image: torch.ones(3, 8, image.width // 4 * 4)
"""


def test_a_module_of_ones_own_with_a_transform(pictures, tmp_path, monkeypatch):
    (tmp_path / "own_vision.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    x, columns, meta = run("own_vision:make", pictures, tmp_path / "out", "last", image_tokens=["cls", "patch"])
    assert meta["source"]["images"]["first_patch"] == 1
    assert torch.equal(x[columns["positions"] == 0], torch.ones(5, 8))
    with pytest.raises(UserError, match=r"images become \(8, 28\) pixels, a blank one \(8, 224\); let the transform resize"):
        run("own_vision:uneven", pictures / "a.png", tmp_path / "uneven", "last")


@pytest.mark.parametrize(
    ("kind", "settings", "line"),
    [
        (
            "siglip",
            {"image_tokens": ["cls"]},
            r"the model has no \[CLS\] token, its tokens are all patches; set image_tokens",
        ),
        ("vit", {"image_tokens": []}, "image_tokens is empty; name patch, cls or both"),
        ("vit", {"drop_tokens": [3]}, "drop_tokens needs the column token_ids, which these rows do not have"),
        ("vit", {"hook": "layers.9"}, "the model has no module 'layers.9'; nearest: layers.1"),
        ("vit", {"hook": "embeddings.patch_embeddings.projection"}, r"puts out a tensor of shape .* for 1 images; hook one"),
        ("vit", {"pictures": "broken.png"}, "the files hold no image that can be read; name others"),
        (
            "vit",
            {"pictures": "metadata.jsonl"},
            r"no images among 1 files, such as .*metadata.jsonl, and the model reads images",
        ),
    ],
)
def test_what_cannot_be_harvested_is_one_line(kind, settings, line, models, pictures, tmp_path):
    settings = dict(settings)
    with pytest.raises(UserError, match=line) as caught:
        run(models[kind], pictures / settings.pop("pictures", ""), tmp_path / "out", **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_towers_of_a_model_of_text_and_images(pictures, tmp_path):
    t = pytest.importorskip("transformers")
    sizes = SMALL | {"projection_dim": 8}
    config = t.CLIPConfig(text_config=sizes | {"vocab_size": 40}, vision_config=sizes | {"image_size": 16, "patch_size": 4})
    model = saved_vision(tmp_path / "clip", config)
    x, *_ = run(model, pictures, tmp_path / "out", "vision_model.encoder.layers.0")
    assert x.shape == (5 * PATCHES, WIDTH)
    hooks = ["vision_model.encoder.layers.0", "text_model.encoder.layers.0"]
    with pytest.raises(
        UserError, match=r"hook 'vision_model\.encoder\.layers\.0' is of images, others are of text; harvest"
    ):
        harvest(model, [str(pictures)], hooks, str(tmp_path / "both"))
