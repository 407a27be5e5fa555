"""The short help of the training commands names what there is, and fits a screen."""

import re

import pytest

from saelight.cli.main import main
from saelight.saes.plain_data import variants
from tests.support.commands import saelight_


def said(capsys, *args):
    assert saelight_(*args) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_the_short_help_fits_a_screen_and_names_flags_that_exist(command, capsys):
    main([command, "--help"])
    short = capsys.readouterr().out
    assert len(short.splitlines()) <= 40
    assert max(map(len, short.splitlines())) <= 125
    known = said(capsys, command, "--help", "all") + said(capsys, command, "--data.help", "ActivationDataModule")
    named = set(re.findall(r"--[\w.]+\w", short)) - {"--model.saes.NAME.FIELD", "--SETTING"}
    assert len(named) > 10
    assert [flag for flag in named if not re.search(rf"{re.escape(flag)}\b", known)] == []


def test_the_short_help_names_all_variants(capsys):
    main(["fit", "--help"])
    text = capsys.readouterr().out
    names = [kind.__name__ for kind in variants() if kind.__module__.startswith("saelight.")]
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []
