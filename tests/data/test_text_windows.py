"""Windows of text: what is in them, and what the model makes of packed ones."""

import pytest
import torch

from saelight.data.harvest.hooked import Hooked
from saelight.data.harvest.loading import load
from saelight.data.harvest.model_settings import LoadedModel, ModelSettings
from saelight.data.harvest.text_windows import WindowCutter, WindowSettings
from saelight.data.harvest.window_batches import WindowRunner, probe_of
from saelight.errors import UserError
from tests.support import letter_models

TEXTS = ["one two three", "four", "a much longer text than the others are", "five six"]
S, E = 1, 2


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {make.__name__: make(tmp_path_factory.mktemp("m")) for make in (letter_models.llama, letter_models.bert)}


@pytest.fixture(scope="module")
def loaded(folders):
    return {name: load(ModelSettings(folder, device="cpu")) for name, folder in folders.items()}


def letters(text):
    return [3 + "abcdefghijklmnopqrstuvwxyz .".index(letter) for letter in text]


def cut(model, documents=TEXTS, skip=0, **settings):
    return [*WindowCutter(WindowSettings(**{"context": 16} | settings), model)(enumerate(documents), skip)]


@pytest.mark.parametrize(
    ("model", "settings", "wanted"),
    [
        ("llama", {}, [letters("abcdef"), letters("gh"), letters("ij")]),
        ("llama", {"bos": True}, [[S, *letters("abcde")], [S, *letters("fgh")], [S, *letters("ij")]]),
        ("bert", {}, [[S, *letters("abcd"), E], [S, *letters("efgh"), E], [S, *letters("ij"), E]]),
        ("bert", {"bos": False}, [[*letters("abcde"), E], [*letters("fgh"), E], [*letters("ij"), E]]),
        ("llama", {"packed": True}, [letters("abcdef"), [*letters("gh"), E, *letters("ij"), E]]),
        ("llama", {"packed": True, "bos": True}, [[S, *letters("abcde")], [S, *letters("fgh"), E], [S, *letters("ij"), E]]),
        ("bert", {"packed": True}, [[S, *letters("abcd"), E], [S, *letters("efgh"), E], [S, *letters("ij"), E]]),
        ("bert", {"packed": True, "context": 9}, [[S, *letters("abcdefg"), E], [S, *letters("h"), E, S, *letters("ij"), E]]),
    ],
)
def test_what_windows_hold(loaded, model, settings, wanted):
    windows = cut(loaded[model], ["abcdefgh", "ij"], **{"context": 6} | settings)
    assert [window.ids for window in windows] == wanted
    added = [[id_ in (S, E) for id_ in window.ids] for window in windows]
    assert [window.special for window in windows] == added


@pytest.mark.parametrize("packed", [False, True])
def test_token_ids_pass_untouched_and_windows_begin_anywhere(loaded, packed):
    ids = [list(range(5, 25)), [29, 30]]
    whole = cut(loaded["bert"], ids, packed=packed)
    assert [id_ for window in whole for id_ in window.ids] == [*ids[0], *ids[1]]
    for window in whole:
        document, first = window.segments[0].document, window.segments[0].first
        left = WindowCutter(WindowSettings(context=16, packed=packed), loaded["bert"])([*enumerate(ids)][document:], first)
        assert next(left) == window


@pytest.mark.parametrize("model", ["llama", "bert"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_documents_are_what_each_would_be_alone(loaded, model, dtype):
    network = loaded[model].network
    hooked = Hooked(network.to(dtype), ["layers.1" if model == "llama" else "encoder.layer.1"])
    hooked.probe(**probe_of(loaded[model], 16))
    packed = WindowSettings(context=40, packed=True, drop_special=False)
    windows = cut(loaded[model], context=40, packed=True, drop_special=False)
    assert max(len(window.segments) for window in windows) > 1
    together = WindowRunner(hooked, packed, 2, 0, dtype)(windows)
    apart = [type(windows[0])([segment]) for window in windows for segment in window.segments]
    alone = WindowRunner(hooked, WindowSettings(context=40), 1, 0, dtype)(apart)
    for hook, x_ND in together.x.items():
        assert torch.allclose(x_ND.float(), alone.x[hook].float(), atol=1e-5 if dtype == torch.float32 else 0.1)
    assert together.columns["positions"].tolist() == alone.columns["positions"].tolist()
    across = WindowRunner(hooked, WindowSettings(context=40, packed=True, attend_across=True), 2, 0, dtype)(windows)
    assert all((across.x[hook].float() - x_ND.float()).abs().max() > 0.5 for hook, x_ND in together.x.items())
    assert max(across.columns["positions"]) == max(len(window.ids) for window in windows) - 1
    for module in network.float().modules():
        module._forward_hooks.clear()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"context": 2}, r"context must be in \[3, 64\] for model"),
        ({"attend_across": True}, "attend_across is for packed windows, of several documents; set packed: true"),
    ],
)
def test_settings_that_make_no_sense(loaded, settings, line):
    with pytest.raises(UserError, match=line):
        cut(loaded["bert"], **settings)


def test_a_model_that_cannot_keep_documents_apart_is_refused():
    transformers = pytest.importorskip("transformers")
    bloom = transformers.BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=40)  # no positions but in its attention
    hooked = Hooked(network := transformers.AutoModel.from_config(bloom).eval(), ["h.0"])
    hooked.probe(**probe_of(LoadedModel("bloom", network), 16))
    with pytest.raises(UserError, match=r"the model cannot keep packed documents apart .* set packed: false"):
        WindowRunner(hooked, WindowSettings(packed=True), 2, 0, torch.float32)
