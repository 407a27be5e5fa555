"""The examples of docs/extending.md, as they stand there; those of a variant and of a source have tests of their own."""

import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import saelight
from saelight.convert import formats
from saelight.errors import UserError
from saelight.loggers import PerSAE
from tests.support.commands import saelight_
from tests.support.runs import data, trainer
from tests.support.sweeps import write

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "extending.md").read_text()


def example(first_word: str) -> types.ModuleType:
    """The module whose docstring begins so, from the page."""
    (code,) = re.findall(rf'```python\n("""{re.escape(first_word)}.*?)```', PAGE, re.DOTALL)
    module = types.ModuleType(Path(first_word).stem)
    exec(compile(code, first_word, "exec"), vars(module))
    return module


def test_the_callback_announces_who_ends(tmp_path, capsys):
    (code,) = re.findall(r"```python\n(class Announce.*?)```", (DOCS / "training.md").read_text(), re.DOTALL)
    exec(compile(code, "training.md", "exec"), there := {"saelight": saelight})
    saes = {name: saelight.TopK(d_sae=20, k=k) for name, k in (("a", 1), ("b", 4))}
    halving = saelight.Halving(rungs=[0.5])
    trainer(tmp_path, max_epochs=2, callbacks=[halving, there["Announce"]()]).fit(
        saelight.SAEBank(saes, d_in=16), data(rows=500, val_rows=100)
    )
    assert capsys.readouterr().out.startswith("a retired halving: fvu")


def test_the_sink_keeps_what_is_logged_and_forgets_what_is_trained_again(tmp_path):
    logger = PerSAE(tmp_path / "run", to=["csv", example("mypkg/lines.py").Lines(str(tmp_path / "lines"))])
    logger.set_saes({"a": {}, "b": {}})
    for step in (1, 2, 3):
        logger.log_metrics({"a/train/l0": step, "tokens": 10 * step}, step)
    logger.resume(2)
    logger.log_metrics({"a/train/l0": 30}, 3)
    logger.finalize("success")
    rows = [json.loads(line) for line in (tmp_path / "lines" / "run" / "a.jsonl").read_text().splitlines()]
    assert [(row["step"], row["train/l0"]) for row in rows if "train/l0" in row] == [(1, 1), (2, 2), (3, 30)]
    assert [row["tokens"] for row in rows if "tokens" in row] == [10, 20]


@pytest.fixture
def arrays(monkeypatch):
    """The format, where the line in formats.py would have it."""
    format = example("saelight/convert/arrays.py").FORMAT
    monkeypatch.setitem(formats.FORMATS, format.name, format)


@pytest.mark.parametrize("decoder", ["free", "unit"])
def test_the_format_holds_an_sae(decoder, arrays):
    sae = saelight.TopK(d_sae=24, k=3, decoder=decoder).build(8, seed=1)
    saelight.convert.write(sae, "out", to="arrays")
    for read in (saelight.load("out"), saelight.convert.read("out", format="arrays")):
        assert (read.config.k, read.d_sae) == (3, 24)
        x = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(read(x), sae(x))
    Path("out/saelight.json").unlink()
    torch.testing.assert_close(saelight.load("out")(x), sae(x))


def test_the_format_refuses_what_it_cannot_say_and_what_it_does_not_know(arrays):
    with pytest.raises(UserError, match="ReLU has no form in arrays: it has TopK autoencoders only"):
        saelight.convert.write(saelight.ReLU(d_sae=24).build(8), "out", to="arrays")
    assert not Path("out").exists()
    Path("other").mkdir()
    np.savez(
        "other/arrays.npz",
        encoder=np.zeros((4, 2)),
        encoder_bias=np.zeros(4),
        decoder=np.zeros((4, 2)),
        bias=np.zeros(3),
        k=1,
    )
    with pytest.raises(UserError, match=r"arrays.npz: bias has shape \[3\]"):
        saelight.load("other")


@pytest.fixture
def prefixed(monkeypatch):
    monkeypatch.setitem(sys.modules, "prefixed", example("mypkg/prefixed.py"))
    return "prefixed.Prefixed"


def test_the_launcher_plans_a_sweep_and_refuses_a_command_that_is_not_there(prefixed, capsys):
    args = ["sweep", "run", write(), "--launcher", prefixed]
    assert saelight_(*args, "--dry-run", "--max-parallel", "2") == 0
    assert "on prefixed, prefixed" in capsys.readouterr().out
    assert saelight_(*args, "--prefix", "no-such-command -x") == 1
    assert capsys.readouterr().err == "saelight: error: --prefix 'no-such-command -x': there is no such command\n"


@pytest.mark.slow
def test_the_launcher_trains_a_sweep(prefixed, capsys):
    assert saelight_("sweep", "run", write(), "--launcher", prefixed, "--prefix", "nice -n 1", "--limit", "2") == 0
    assert "on prefixed" in capsys.readouterr().out
    assert [row["state"] for row in saelight.results("runs/small") if row["state"] != "waiting"] == ["finished"] * 2
