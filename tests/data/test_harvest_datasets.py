"""Data sets of the datasets library: of a hub on loopback, and of folders that it saved itself."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from saelight.data.harvest.corpus import Corpus
from saelight.data.harvest.text_settings import TextSettings
from saelight.errors import UserError
from tests.support.dataset_hub import giving_out
from tests.support.tiny_models import of_text, saved_model

# Its import takes seconds.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("datasets") is None, reason="needs datasets")]
ROWS = {"text": ["one", "", "two"], "tokens": [[1], [], [2, 3]]}
CONFIGS = """---
configs:
- config_name: small
  data_files: small.jsonl
- config_name: large
  data_files: large.jsonl
---
"""
RUN = """
import json, sys
from saelight.data.harvest.corpus import Corpus
from saelight.data.harvest.harvester import harvest
from saelight.data.harvest.text_settings import TextSettings
from saelight.errors import UserError
for files, settings in json.loads(sys.argv[1]):
    try:
        print(json.dumps([d.content for d in Corpus(TextSettings([files], **settings))]))
    except UserError as error:
        print(json.dumps(str(error)))
harvest("owner/tiny", ["hf://owner/texts"], ["h.0"], sys.argv[2], revision="v2", context=16, max_norm=None)
"""


def contents(folder, **settings):
    return [document.content for document in Corpus(TextSettings([str(folder)], **settings))]


def test_folders_that_it_saved(tmp_path):
    import datasets

    saved = datasets.Dataset.from_dict(ROWS)
    saved.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": saved, "test": saved.select([2])}).save_to_disk(tmp_path / "both")
    assert contents(tmp_path / "one") == ["one", "two"]
    assert contents(tmp_path / "one", column="tokens") == [[1], [2, 3]]
    assert contents(tmp_path / "both", split="test") == ["two"]
    assert contents(tmp_path / "*", split="train") == ["one", "two"] * 2
    for settings, line in (
        ({"split": "tst"}, "no split 'tst', only train, test; did you"),
        ({"column": "x"}, "no column 'x'"),
    ):
        with pytest.raises(UserError, match=line):
            contents(tmp_path / "both", **settings)


def test_images_that_it_saved(tmp_path):
    import datasets
    from PIL import Image

    pictures = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    datasets.Dataset.from_dict({"image": [pictures[0], None, pictures[1]], "n": [1, 2, 3]}).save_to_disk(tmp_path / "a")
    found = [document.content for document in Corpus(TextSettings([str(tmp_path / "a")]), images=True)]
    assert [image.getpixel((0, 0)) for image in found] == [(255, 0, 0), (0, 0, 255)]
    with pytest.raises(UserError, match="row 0: column 'n' holds int, no image; choose another"):
        list(Corpus(TextSettings([str(tmp_path / "a")], column="n"), images=True))


def test_a_hub(tmp_path):
    texts, subsets = (tmp_path / "hub" / "datasets" / "owner" / name for name in ("texts", "subsets"))
    for folder in (texts / "data", subsets):
        folder.mkdir(parents=True)
    for path, rows in (
        (texts / "data" / "train.jsonl", [{"text": "sparse", "n": 1}, {"text": "code", "n": 2}]),
        (texts / "data" / "test.jsonl", [{"text": "test", "n": 3}]),
        (subsets / "small.jsonl", [{"input_ids": [1, 2]}]),
        (subsets / "large.jsonl", [{"input_ids": [3]}, {"input_ids": [4]}]),
    ):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (subsets / "README.md").write_text(CONFIGS)
    saved_model(tmp_path / "hub" / "models" / "owner" / "tiny", of_text("gpt2"))
    cases = [
        ("hf://owner/texts", {}, ["sparse", "code"]),
        ("hf://datasets/owner/texts@v2", {"split": "test"}, ["test"]),
        ("hf://owner/texts", {"streaming": False}, ["sparse", "code"]),
        ("hf://owner/texts/data/test.jsonl", {}, ["test"]),
        ("hf://owner/subsets", {"subset": "large"}, [[3], [4]]),
        (
            "hf://owner/subsets",
            {},
            "Config name is missing. Please pick one among the available configs: ['small', 'large']",
        ),
        ("hf://owner/texts", {"split": "dev"}, "has no split 'dev', only train, test; choose one with `split`"),
        ("hf://owner/texts", {"column": "body"}, "has no column 'body', only text, n; choose one of these"),
        ("hf://owner/none", {}, "cannot read hf://owner/none: RepositoryNotFoundError"),
        ("hf://owner/texts@v9", {}, "cannot read hf://owner/texts@v9: RevisionNotFoundError"),
        ("hf://owner", {}, "hf://owner is no data set; write hf://OWNER/NAME"),
    ]
    with giving_out(tmp_path / "hub") as address:
        home = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        home["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        words = [json.dumps([case[:2] for case in cases]), str(tmp_path / "out")]
        env = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")} | home
        done = subprocess.run([sys.executable, "-c", RUN, *words], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *found, last, _ = done.stdout.splitlines()
    assert last.startswith("10 rows of 2 documents in")
    for (_, _, wanted), line in zip(cases, map(json.loads, found), strict=True):
        assert "\n" not in line
        assert wanted in line if isinstance(wanted, str) else wanted == line
