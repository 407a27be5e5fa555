"""What a terminal shows while SAEs train."""

import re

import saelight
from tests.support.runs import data, trainer
from tests.support.variants import VARIANTS


def test_what_is_trained_where_and_how_the_best_and_worst_fare(tmp_path, capsys):
    t = trainer(tmp_path, max_steps=6, log_every_n_steps=2, enable_progress_bar=True)
    bank = saelight.SAEBank({"a": VARIANTS["topk"], "b": VARIANTS["relu"]}, d_in=16)
    t.fit(bank, data())
    err = capsys.readouterr().err
    assert err.splitlines()[0] == f"2 SAEs, 16 → 32 to 40, on cpu, in {t.folder}"
    fvu = {row["name"]: row["metrics"]["fvu"] for row in t.results}
    shown = re.findall(r"(best|worst) (\w): FVU (\d\.\d{3}), L0 (\d+\.\d), loss ", err.splitlines()[-1])
    assert [(which, name) for which, name, *_ in shown] == [
        ("best", min(fvu, key=fvu.get)),
        ("worst", max(fvu, key=fvu.get)),
    ]
    assert "stopped" not in err


def test_one_sae_is_neither_best_nor_worst(tmp_path, capsys):
    t = trainer(tmp_path, max_steps=4, log_every_n_steps=2, enable_progress_bar=True)
    t.fit(saelight.SAEBank({"a": VARIANTS["topk"]}, d_in=16), data())
    last = capsys.readouterr().err.splitlines()[-1]
    assert ", a: FVU " in last
    assert "best" not in last
