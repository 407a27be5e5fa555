"""docs/migrating.md names settings that saelight has, and its config is one."""

import dataclasses
import inspect
import re
from pathlib import Path

import lightning
import yaml

import saelight
from saelight.schedules import Schedule
from tests.support.commands import saelight_, write

PAGE = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text()


def names(thing):
    """The settings of a dataclass, or of what is called."""
    if dataclasses.is_dataclass(thing):
        return {field.name for field in dataclasses.fields(thing)}
    return set(inspect.signature(thing).parameters)


def test_every_setting_is_there():
    variants = [value for value in vars(saelight.saes).values() if dataclasses.is_dataclass(value)]
    known = {
        "sae": set().union(*map(names, variants)),
        "sae.schedule": names(Schedule),
        "data": names(saelight.ActivationDataModule),
        "model": names(saelight.SAEBank),
        "trainer": names(saelight.Trainer) | names(lightning.Trainer),
    }
    table = PAGE.partition("## Settings side by side")[2].partition("Of the harvest")[0]
    first = "".join(row.split("|")[1] for row in table.splitlines() if row.startswith("|"))
    settings = re.findall(r"`((?:sae|data|model|trainer)\.[\w.]+)", first)
    assert len(settings) > 25
    assert [setting for setting in settings if setting.rpartition(".")[2] not in known[setting.rpartition(".")[0]]] == []


def test_its_config_is_one(capsys):
    (config,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert saelight_("fit", "--config", write(config), "--print_config") == 0
    printed, given = (yaml.safe_load(text)["model"] for text in (capsys.readouterr().out, config))
    assert printed["max_tokens"] == given["max_tokens"]
    schedules = [model["saes"]["batch_topk"]["init_args"]["schedule"] for model in (given, printed)]
    assert schedules[0].items() <= schedules[1].items()
