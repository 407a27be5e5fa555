"""Sweep files: how many points they come to, what those are called, and what is refused."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saelight.errors import UserError
from saelight.sweep.plan.names import LONGEST, name_points
from saelight.sweep.plan.points import expand, select
from saelight.sweep.plan.resolve import resolve
from saelight.sweep.plan.spec import read
from tests.support.commands import changed
from tests.support.sweeps import SWEEP, write

ROOT = Path(__file__).parents[2]


def names(sweep: dict | str, file: str = "sweep.yaml", **overrides) -> list[str]:
    points, _ = expand(read(write(sweep, name=file)), {key.replace("__", "."): value for key, value in overrides.items()})
    return [point.name for point in points]


@pytest.mark.parametrize(
    ("file", "points", "distinct"),
    [
        ("six_way.yaml", 912, 912),
        ("paired.yaml", 54, 54),
        ("paired.py", 54, 54),
        ("conditional.yaml", 6, 6),
        ("conditional.py", 6, 6),
        ("architecture.yaml", 3, 3),
        ("architecture.py", 3, 3),
        ("quick.yaml", 22, 18),
        ("front.yaml", 20, 20),
    ],
)
def test_the_shipped_sweeps_come_to_their_counts(file, points, distinct):
    sweep = read(ROOT / "sweeps" / file)
    expanded, _ = expand(sweep)
    resolved = resolve(sweep, expanded)
    assert len(expanded) == points == len({point.name for point in expanded})
    assert len(resolved.entries) == distinct
    assert sum(len(entry.names) for entry in resolved.entries) == points


def test_the_six_ways_parts():
    counts = {}
    for point in expand(read(ROOT / "sweeps" / "six_way.yaml"))[0]:
        counts[point.settings["sae.class_path"]] = counts.get(point.settings["sae.class_path"], 0) + 1
    assert counts == {"ReLU": 48, "HardConcrete": 288, "Gated": 144, "GatedHardConcrete": 432}


@pytest.mark.parametrize("name", ["paired", "conditional", "architecture"])
def test_a_python_sweep_is_its_yaml_twin(name):
    hashes = []
    for suffix in ("yaml", "py"):
        sweep = read(ROOT / "sweeps" / f"{name}.{suffix}")
        hashes.append({entry.hash for entry in resolve(sweep, expand(sweep)[0]).entries})
    assert hashes[0] == hashes[1]


def test_duplicates_keep_their_names():
    sweep = read(ROOT / "sweeps" / "quick.yaml")
    entries = resolve(sweep, expand(sweep)[0]).entries
    assert {tuple(entry.names) for entry in entries if len(entry.names) > 1} == {
        ("reference", "lr-lr0.02", "batch-batch512", "init-encoder_scale1-decoder_scale1"),
        ("lr-lr0.005", "stable"),
    }


def test_names_say_what_varies():
    assert sorted(names(SWEEP)) == [
        "relu-lr0.001",
        "relu-lr0.003",
        "topk-lr0.001-k2",
        "topk-lr0.001-k4",
        "topk-lr0.003-k2",
        "topk-lr0.003-k4",
    ]
    sweep = read(ROOT / "sweeps" / "six_way.yaml")
    assert "gated-x16-lr0.0003-s0.03-a0.1" in [point.name for point in expand(sweep)[0]]


settings = st.dictionaries(
    st.sampled_from(["sae.lr", "sae.k", "sae.class_path", "data.path", "trainer.max_epochs"]),
    st.one_of(
        st.integers(), st.floats(allow_nan=False), st.text(max_size=90), st.booleans(), st.lists(st.integers(), max_size=2)
    ),
    max_size=4,
)


@given(st.lists(st.tuples(st.lists(st.text(max_size=30), max_size=2).map(tuple), settings), min_size=1, max_size=6))
def test_names_are_safe_and_tell_settings_apart(drafts):
    named = name_points(drafts)
    for name in named:
        assert 0 < len(name) <= LONGEST
        assert all(c.isascii() and (c.isalnum() or c in "_.-") for c in name)
        assert name[0] != "."
    for (name, (_, a)), (other, (_, b)) in itertools.combinations(zip(named, drafts, strict=True), 2):
        assert repr(a) == repr(b) or a == b or name.lower() != other.lower()


def test_the_command_line_goes_before_the_sweep_and_collapses_an_axis():
    points, notes = expand(read(write()), {"sae.lr": 5e-4})
    assert [point.settings["sae.lr"] for point in points] == [5e-4] * 3
    assert notes == ["--set fixes the swept sae.lr: 6 points become 3"]
    # One that equals the sweep's own value still counts.
    assert len(expand(read(write()), {"sae.lr": 1e-3})[0]) == 3


def test_the_sweep_goes_before_its_defaults_and_those_before_nothing():
    sweep = read(write(changed(SWEEP, sae={"lr": 9.0, "expansion": 2, "k": 3, "schedule": {"kind": "cosine"}})))
    resolved = resolve(sweep, expand(sweep)[0])
    by_name = {entry.name: entry.sae for entry in resolved.entries}
    assert by_name["topk-lr0.001-k2"] == {
        "class_path": "TopK",
        "lr": 1e-3,
        "k": 2,
        "expansion": 2,
        "schedule": {"kind": "cosine"},
    }
    assert by_name["relu-lr0.001"]["expansion"] == 2
    assert resolved.notes == ["the default sae.k is dropped for 2 points, whose class has no such field"]


def test_nested_mappings_merge():
    sweep = read(
        write(
            {
                "base": "base.yaml",
                "sae": {"class_path": "TopK", "schedule": {"kind": "cosine", "warmup": 0.5}},
                "parameters": {"sae.schedule.warmup": {"values": [0.1, 0.2]}},
            }
        )
    )
    assert [entry.sae["schedule"] for entry in resolve(sweep, expand(sweep)[0]).entries] == [
        {"kind": "cosine", "warmup": 0.1},
        {"kind": "cosine", "warmup": 0.2},
    ]


def test_cases_nest_and_multiply():
    inner = [{"name": "a"}, {"name": "b", "parameters": {"sae.k": {"values": [1, 2]}}}]
    cases = [{"name": "x", "parameters": {"sae.lr": {"values": [0.1, 0.2]}}, "cases": inner}, {"name": "y"}]
    assert names({"base": "base.yaml", "sae": {"class_path": "TopK"}, "cases": cases}) == [
        "x-a-lr0.1",
        "x-a-lr0.2",
        "x-b-lr0.1-k1",
        "x-b-lr0.2-k1",
        "x-b-lr0.1-k2",
        "x-b-lr0.2-k2",
        "y",
    ]


def test_numbers_without_a_point_are_numbers():
    text = "base: base.yaml\nsae: {class_path: TopK}\nparameters:\n  sae.lr: {values: [1e-4, 3e-4]}\n"
    assert names(text) == ["lr0.0001", "lr0.0003"]


def test_random_points_are_the_same_each_time_and_within_their_ranges():
    sweep = {
        "base": "base.yaml",
        "method": "random",
        "run_cap": 30,
        "sae": {"class_path": "TopK"},
        "parameters": {
            "sae.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
            "sae.k": {"min": 2, "max": 5},
            "sae.encoder_scale": {"distribution": "q_uniform", "min": 0.5, "max": 2.0, "q": 0.25},
            "sae.tied_init": {"values": [True, False]},
        },
    }
    first, again = (expand(read(write(sweep)))[0] for _ in range(2))
    assert [p.settings for p in first] == [p.settings for p in again]
    for key, accept in {
        "sae.lr": lambda v: 1e-4 <= v <= 1e-2,
        "sae.k": lambda v: v in (2, 3, 4, 5),
        "sae.encoder_scale": lambda v: v in [0.5 + i / 4 for i in range(7)],
    }.items():
        assert all(accept(point.settings[key]) for point in first)
    assert {point.settings["sae.k"] for point in first} == {2, 3, 4, 5}
    assert sum(point.settings["sae.lr"] < 1e-3 for point in first) in range(8, 23)
    # A higher cap adds points and leaves those that were there.
    more = expand(read(write(changed(sweep, run_cap=31))))[0]
    assert [p.settings for p in more[:30]] == [p.settings for p in first]
    assert len(more) == 31


def test_filter_and_limit_choose_and_do_not_renumber():
    points, _ = expand(read(write()))
    relu = select(points, "relu")
    assert [p.name for p in relu] == ["relu-lr0.001", "relu-lr0.003"]
    assert [p.index for p in relu] == [p.index for p in points if "relu" in p.name]
    assert [p.name for p in select(points, "*k2", 1)] == ["topk-lr0.001-k2"]
    both = {"relu-lr0.001", "relu-lr0.003", "topk-lr0.001-k2", "topk-lr0.003-k2"}
    assert {p.name for p in select(points, "relu,*k2")} == both
    with pytest.raises(UserError, match="--filter nothing leaves no point; names are like"):
        select(points, "nothing")


TOP = {"base": "base.yaml", "sae": {"class_path": "TopK"}}
BAD = {
    "unknown key": (TOP | {"paramters": {}}, r"sweep.yaml: unknown key 'paramters'; did you mean 'parameters'\?"),
    "unknown root": (TOP | {"parameters": {"sea.lr": {"value": 1}}}, r"parameters.sea.lr: unknown key .* mean 'sae'\?"),
    "unequal zip": (TOP | {"zip": [{"sae.lr": [1, 2], "sae.k": [1]}]}, r"zip\[0\]: .*one length: sae.lr has 2, sae.k has 1"),
    "empty values": (TOP | {"parameters": {"sae.lr": {"values": []}}}, r"parameters.sae.lr: `values` must be a list"),
    "value listed twice": (TOP | {"parameters": {"sae.lr": {"values": [1, 1]}}}, r"sae.lr: lists 1 twice"),
    "bare list": (TOP | {"parameters": {"sae.lr": [1, 2]}}, r"sae.lr: write \{values: \[1, 2\]\}"),
    "swept twice": (
        TOP | {"parameters": {"sae.lr": {"values": [1, 2]}}, "cases": [{"parameters": {"sae.lr": {"values": [3, 4]}}}]},
        r"cases\[0\].parameters.sae.lr: sae.lr is swept twice \(see .*parameters.sae.lr\)",
    ),
    "no points": (TOP, "no points"),
    "no base": ({"sae": {"class_path": "TopK"}}, r"no `base`: name a complete config"),
    "base that is not there": (TOP | {"base": "none.yaml"}, r"none.yaml cannot be read: No such file"),
    "misspelt method": (TOP | {"method": "gird"}, r"method must be one of .*did you mean 'grid'\?"),
    "random without an end": (TOP | {"method": "random", "parameters": {"sae.k": {"min": 1, "max": 2}}}, "`run_cap: 50`"),
    "range in a grid": (TOP | {"parameters": {"sae.k": {"min": 1, "max": 2}}}, "a grid needs `values`"),
    "range the wrong way": (
        TOP | {"method": "random", "run_cap": 2, "parameters": {"sae.k": {"min": 3, "max": 2}}},
        "min < max, got min 3",
    ),
    "unknown distribution": (
        TOP | {"method": "random", "run_cap": 2, "parameters": {"sae.k": {"distribution": "unifrm", "min": 1, "max": 2}}},
        r"unknown distribution 'unifrm'; did you mean 'uniform'\?",
    ),
    "the bank's SAEs": (TOP | {"parameters": {"model.saes.x": {"value": 1}}}, "a sweep makes model.saes itself"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sweeps_are_refused_with_file_key_and_fix(case):
    sweep, message = BAD[case]
    with pytest.raises(UserError, match=message):
        expand(read(write(sweep)))


BAD_POINTS = {
    "unknown field": ({"sae.kk": {"value": 3}}, r"sweep.yaml: .*: TopK has no field 'kk'; did you mean 'k'\?"),
    "wrong type": ({"sae.lr": {"value": "fast"}}, r"lr: expected float or null, got fast"),
    "value out of range": ({"sae.k": {"values": [2, 0]}}, r"sweep.yaml: k0: k must be at least 1, got 0"),
    "wider than the SAE": ({"sae.k": {"value": 99}}, r"k = 99 exceeds d_sae = 64"),
    "both widths": ({"sae.d_sae": {"value": 9}, "sae.expansion": {"value": 2}}, "expansion and d_sae exclude each other"),
    "unknown class": ({"sae.class_path": {"value": "TopKay"}}, r"no SAE class 'TopKay'; did you mean 'TopK'\?"),
    "unknown trainer key": ({"trainer.max_epoch": {"value": 2}}, r"unknown key 'trainer.max_epoch'; .*'max_epochs'"),
    "unknown data key": ({"data.layer": {"values": [1, 2]}}, "unknown key 'data.layer'"),
}


@pytest.mark.parametrize("case", BAD_POINTS)
def test_points_are_checked_against_the_real_classes(case):
    parameters, message = BAD_POINTS[case]
    sweep = read(write(TOP | {"parameters": parameters}))
    with pytest.raises(UserError, match=message):
        resolve(sweep, expand(sweep)[0])


def test_a_base_that_does_not_parse_is_refused_with_its_line():
    file = write()
    Path("base.yaml").write_text("trainer: {max_epochs: 1\nmodel: 2\n")
    with pytest.raises(UserError, match=r"base.yaml: .*line \d"):
        read(file)


def test_a_python_sweeps_exception_is_shown_whole():
    with pytest.raises(ZeroDivisionError):
        read(write("def make_cfgs():\n    return 1 / 0\n", name="sweep.py"))
    with pytest.raises(UserError, match=r"defines no make_cfgs\(\)"):
        read(write("x = 1\n", name="sweep.py"))
    with pytest.raises(UserError, match=r"make_cfgs\(\) must return a list"):
        read(write("base = 'base.yaml'\ndef make_cfgs():\n    return []\n", name="sweep.py"))


def test_what_a_grid_does_not_do_is_said():
    sweep = read(write({**SWEEP, "early_terminate": {"type": "hyperband", "eta": 3}}))
    assert "all points of this grid run to their end; {type: halving} would end poor ones" in sweep.notes[0]
    assert read(write({**SWEEP, "early_terminate": {"type": "halving", "keep": 0.25}})).halving == {
        "class_path": "Halving",
        "init_args": {"keep": 0.25, "metric": "fvu", "goal": "minimize"},
    }


def test_halving_is_part_of_a_points_identity():
    plain, halved = (read(write({**SWEEP, **more})) for more in ({}, {"early_terminate": {"type": "halving"}}))
    hashes = [{entry.hash for entry in resolve(sweep, expand(sweep)[0]).entries} for sweep in (plain, halved)]
    assert not hashes[0] & hashes[1]
