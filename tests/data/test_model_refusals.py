"""What cannot be trained on straight from a model is one line that says so."""

import pytest

from saelight.data.harvest.documents import find
from saelight.errors import UserError
from tests.data.from_model import SETTINGS, from_model, write_text
from tests.support import letter_models
from tests.support.commands import saelight_, write


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return letter_models.bert(folder / "m", num_hidden_layers=1), write_text(folder / "t", 30)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"hooks": ["encoder.layer.7"]}, r"the model has no module 'encoder.layer.7'; nearest: encoder.layer.0"),
        ({"hooks": []}, "data.hooks names one hook, or a transcoder's two, got none"),
        ({"hooks": ["a", "b", "c"]}, "data.hooks names one hook, or a transcoder's two, got a, b, c"),
        ({"hooks": ["a", "a"]}, "data.hooks names one hook, or a transcoder's two, got a, a"),
        ({"hooks": ["pooler"]}, "did not run|hook one that puts out"),
        ({"model": "no/such"}, "cannot load model"),
        ({"model": "./nowhere"}, "there is no such folder"),
        ({"files": ["nothing/*.txt"]}, "no file matches 'nothing"),
        ({"context": 65}, r"context must be in \[3, 64\]"),
        ({"context": 0}, "data.context must be"),
        ({"skip_positions": 64}, "leaves nothing of windows of 64 tokens"),
        ({"max_norm": 1}, "max_norm is in medians and must be above 1"),
        ({"rows": 0}, "data.rows must be"),
        ({"buffer": 0}, "data.buffer must be"),
        (
            {"val_rows": 10**6},
            "the text has nothing to train on beside the 30 documents that data.val_rows 1,000,000 holds out",
        ),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"device": "nonsense"}, "nonsense"),
        ({"statistics": "nowhere"}, "nowhere"),
        ({"batch_size": 5000}, "do not fill one batch of 5000"),
        ({"attend_across": True}, "attend_across is for packed windows"),
    ],
)
def test_settings_that_cannot_be(made, settings, line):
    model, files = made
    settings = {"hooks": ["encoder.layer.0"], "rows": 700, "model": model} | settings
    with pytest.raises(UserError, match=line) as caught:
        from_model(settings.pop("model"), settings.pop("files", [files])[0], **settings).train_dataloader()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "settings", "line"),
    [
        ("abc", {"val_rows": 0}, "the text holds 3 rows to train on, less than a window of 64 tokens; name more text"),
        ("abc", {}, "the text has nothing to train on beside the 1 documents that data.val_rows 150 holds out"),
        ("  ", {}, "the text has nothing to train on; name more text"),
    ],
)
def test_too_little_text(made, tmp_path, text, settings, line):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(UserError, match=line):
        from_model(made[0], f"{tmp_path}/*.txt", hooks=["encoder.layer.0"], **settings)


def test_a_text_that_ends_is_read_again_and_said_to_be(made):
    model, files = made
    with pytest.warns(
        UserWarning, match=r"the text holds 1,\d+ rows to train on, and 3,000 are wanted: it is read \d times"
    ):
        data = from_model(model, files, hooks=["encoder.layer.0"], rows=3000, first_rows=3000)
    assert data.n_train_rows == 3000


@pytest.mark.parametrize("changed", ["first", "later", "removed"])
def test_a_text_that_changed_under_a_resume(made, tmp_path, changed):
    model, files = made[0], write_text(tmp_path / "t", 60)
    settings = {"hooks": ["encoder.layer.0"], "rows": 1800}
    data = from_model(model, files, **settings)
    next(iter(data.train_dataloader()))
    state = data.state_dict()
    read = [number for number, *_ in data.opened.rows.stream._model.documents if number <= state["bookmarks"][0]["read"][0]]
    paths = find([files], [], seed=0)
    path = paths[0 if changed == "first" else read[-1]]
    if changed == "removed":
        path.unlink()
    else:
        path.write_text("another text")
    with pytest.raises(UserError, match="the text is not what it was when the checkpoint was written: of its first"):
        from_model(model, files, **settings).load_state_dict(state)


def test_a_folder_that_exists(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = SETTINGS | {"model": made[0], "files": [made[1]], "hooks": ["encoder.layer.0"], "save_to": "out"}
    config = {
        "trainer": {"max_steps": 6, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {"saes": {"topk": {"class_path": "TopK", "init_args": {"expansion": 2, "k": 4}}}},
        "data": {"class_path": "ModelDataModule", "init_args": settings},
    }
    (tmp_path / "out").mkdir()
    assert saelight_("fit", "--config", write(config)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "saelight: error: out exists; choose another folder, or remove it"
    assert not (tmp_path / "runs").exists()
