"""Configs: how several are merged, what YAML may hold, what a name may be; each input beside the line that it gets."""

import os
from pathlib import Path

import pytest
import yaml

import saelight
from saelight.parsing import config_files, yaml_files
from tests.support.commands import CONFIG, changed, refused, saelight_, write

TEXT = yaml.safe_dump(CONFIG)
RELU = CONFIG["model"]["saes"]["relu"]


def trainer(**settings):
    return changed(**{f"trainer__{name}": value for name, value in settings.items()})


def topk(**settings):
    return changed(model__saes__topk__init_args={"k": 4, "expansion": 2} | settings)


UNREADABLE = {
    "UTF-16": (TEXT.encode("utf-16"), "cfg.yaml is not UTF-8 (byte 0)"),
    "Latin-1": (b"# \xe9\n" + TEXT.encode(), "cfg.yaml is not UTF-8 (byte 2)"),
    "a value that holds itself": ("x-a: &a [*a]\n" + TEXT, "holds itself (line 1)"),
    "thousands of brackets": ("[" * 3000, "nests more than 100 deep"),
    "a template": ("model: {saes: {a: {class_path: TopK, init_args: {lr: {{ lr }}}}}}", "is this a template"),
    "a number of 5,000 digits": ("trainer: {max_epochs: " + "9" * 5000 + "}", "4300 digits"),
    "aliases without end": (
        "x0: &x0 [1, 1]\n" + "".join(f"x{i}: &x{i} [*x{i - 1}, *x{i - 1}]\n" for i in range(1, 30)),
        "stands for more than 1,000,000 values",
    ),
    "nothing": ("", "cfg.yaml is empty: a config has settings by name"),
    "a list": ("- a", "cfg.yaml holds a list"),
    "no trainer": (changed(trainer=None), "trainer holds no settings"),
    "no model": (changed(model=[]), "model holds no settings"),
    "SAEs in a list": (changed(model__saes=["TopK"]), "model.saes holds no SAEs by name"),
    "a width": (changed(model__d_in=5), "model.d_in is what the data have"),
    "an SAE that is a number": (changed(model__saes__topk=5), "model.saes.topk holds 5: write"),
    "a class that is a list": (changed(model__saes__topk__class_path=["TopK"]), "model.saes.topk: class_path is a text"),
    "a schedule that is a list": (topk(schedule=[1]), "model.saes.topk.init_args.schedule holds [1]"),
    "null for no SAE": (changed(model__saes__other=None), "model.saes.other is null, and there is no such SAE"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_is_no_config(case):
    config, line = UNREADABLE[case]
    content = config if isinstance(config, bytes) else Path(write(config)).read_bytes()
    Path("cfg.yaml").write_bytes(content)
    with pytest.raises(saelight.UserError) as error:
        config_files.merge_saes({}, config_files.read("cfg.yaml"), "cfg.yaml")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


REFUSED = {
    "not UTF-8": (TEXT.encode("utf-16"), "cfg.yaml is not UTF-8 (byte 0)"),
    "no data": ({key: CONFIG[key] for key in ("trainer", "model")}, "which data? give data.class_path"),
    "seed_everything": (changed(seed_everything=3), "set model.seed, of the SAEs' weights and noise, and data.seed"),
    "default_root_dir": (trainer(default_root_dir="x"), "run folders lie in trainer.root"),
    "barebones": (trainer(barebones=True), "trainer.barebones turns off what a run is for"),
    # types
    "a text for a number": (topk(k="x"), "cfg.yaml: model.saes.topk.init_args.k: expected int, got x"),
    "a precision": (trainer(precision="fp16"), "did you mean 'bf16'?"),
    "null for a number": (changed(data__init_args__batch_size=None), "data.batch_size must be a whole number, got None"),
    "a run's name": (trainer(name="../x"), "trainer.name '../x' cannot be a folder's"),
    "what a callback of Lightning's takes": (
        trainer(callbacks=[{"class_path": "EarlyStopping", "init_args": {"monitor": "x", "mode": "least"}}]),
        "`mode` can be min, max",
    ),
    # places
    "a root in /proc": (trainer(root="/proc/x"), "run folder /proc/x/cfg cannot be made"),
    "a root in a file": (trainer(root="cfg.yaml"), "run folder cfg.yaml/cfg cannot be made"),
    "a folder in a file": (trainer(folder="cfg.yaml/x"), "run folder cfg.yaml/x cannot be made (Not a directory)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_config_is_refused_in_one_line(case, capsys):
    config, line = REFUSED[case]
    if isinstance(config, bytes):
        Path("cfg.yaml").write_bytes(config)
    else:
        write(config)
    assert line in refused(capsys, "fit", "--config", "cfg.yaml")
    assert not [path for path in Path().rglob("*") if path.is_file() and path.name != "cfg.yaml"]


FLAGS = {
    ("--data.path", "x"): "'path' is no setting of the class that is configured here",
    ("--path", "x"): "'path' is no setting of the class that is configured here",
    ("--model.saes.topk-5.k", "3"): "no SAE is called 'topk-5'; did you mean 'topk'?",
    ("--model.d_in", "5"): "data.d_in",
    ("--print_config", "skip_default"): "write --print_config=skip_default, in one word",
    ("--seed_everything", "3"): "set model.seed",
}


@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_a_flag_is_refused_in_one_line(flags, capsys):
    assert FLAGS[flags] in refused(capsys, "fit", "--config", write(CONFIG), *flags)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["a.partial"], "the SAE's name 'a.partial' is as what is half written"),
        (["a", "b", "A"], "SAEs 'a' and 'A' differ by case alone"),
        (["aux"], "the SAE's name 'aux' cannot be a folder's on Windows"),
        (["x" * 250], "has 250 bytes: give one of at most 200"),
        (["bank"], "'bank' cannot name an SAE"),
        ([16], "16 cannot name an SAE: use a text"),
        (["a/b"], "'a/b' cannot name an SAE"),
    ],
    ids=str,
)
def test_names_of_saes(names, line):
    with pytest.raises(saelight.UserError) as error:
        saelight.SAEBank({name: saelight.saes.ReLU() for name in names}, d_in=4)
    assert line in str(error.value)


def test_a_harvests_config_is_read_alike(capsys):
    Path("harvest.yaml").write_bytes("model: x".encode("utf-16"))
    assert "harvest.yaml is not UTF-8" in refused(capsys, "shards", "harvest", "--config", "harvest.yaml")


def test_only_what_is_no_default_is_printed(capsys):
    assert saelight_("fit", "--config", write(CONFIG), "--print_config=skip_default") == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["saes"]["topk"] == {"class_path": "saelight.TopK", "init_args": {"expansion": 2.0, "k": 4}}
    assert saelight_("fit", "--config", write(printed, "again.yaml"), "--trainer.max_steps", "1") == 0


def test_names_are_texts():
    text = TEXT.replace("    relu:", "    16:").replace("    topk:", "    on:")
    assert saelight_("fit", "--config", write(text), "--model.saes.16.lr", "1e-3", "--trainer.max_steps", "1") == 0
    saved = yaml.safe_load(Path("runs/cfg/config.yaml").read_text())
    assert saved["model"]["saes"].keys() == {"16", "on"}
    assert saelight.load("runs/cfg/saes/16").config.lr == 1e-3
    assert saelight_("fit", "--config", "runs/cfg/config.yaml", "--trainer.max_steps", "1") == 0


def test_a_second_config_is_merged_by_name():
    second = {"model": {"saes": {"topk": {"init_args": {"k": 3}}, "relu": None, "new": RELU}}}
    args = ["--config", write(CONFIG), "--config", write(second, "second.yaml"), "--trainer.max_steps", "1"]
    assert saelight_("fit", *args) == 0
    saes = yaml.safe_load(Path("runs/second/config.yaml").read_text())["model"]["saes"]
    assert saes.keys() == {"topk", "new"}
    assert saes["topk"]["init_args"]["k"] == 3
    assert saes["topk"]["init_args"]["expansion"] == 2.0


def test_a_class_of_its_own_begins_anew():
    before = {"a": {"class_path": "TopK", "init_args": {"k": 3}}}
    for given, after in [
        ({"class_path": "saelight.TopK", "init_args": {"lr": 1}}, {"k": 3, "lr": 1}),
        ({"class_path": "ReLU", "init_args": {"lr": 1}}, {"lr": 1}),
    ]:
        merged = config_files.merge_saes(before, {"model": {"saes": {"a": given}}}, "b.yaml")
        assert merged["model"]["saes"]["a"]["init_args"] == after


def test_anchors_have_a_place(capsys):
    text = "x-schedule: &s {kind: cosine}\n" + TEXT.replace("k: 4", "k: 4\n        schedule: *s")
    assert saelight_("fit", "--config", write(text), "--trainer.max_steps", "1") == 0
    assert saelight.load("runs/cfg/saes/topk").config.schedule.kind == "cosine"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1:12:00:00", "1:12:00:00"),
        ("2026-01-01", "2026-01-01"),
        ("0x10", 16),
        ("-5", -5),
        (".inf", float("inf")),
        ("{1: a, 0.5: b, on: c, null: d}", {"1": "a", "0.5": "b", "on": "c", "null": "d"}),
        ("{a: &a {b: 1}, c: {<<: *a, d: 2}}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
    ],
)
def test_what_yaml_says(text, value):
    assert yaml_files.parse(text) == value


def test_files_are_utf_8_whatever_the_locale():
    Path("a.yaml").write_bytes("\ufeffa: größer  # é".encode())
    assert yaml_files.read("a.yaml") == {"a": "größer"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(capsys):
    Path("ro").mkdir(mode=0o555)
    config = write(CONFIG)
    assert "cannot be made (Permission denied)" in refused(capsys, "fit", "--config", config, "--trainer.root", "ro/runs")
