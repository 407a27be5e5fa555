"""The rooms of saelight: imports run downwards, none in a circle, and what is to load fast loads no torch."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.support.import_graph import circle, import_graph, imported_names, modules, packages, packages_loaded

LAYERS = (
    ("", "__main__", "cli"),
    ("serve",),
    ("report", "evals", "hub"),
    ("sweep",),
    ("sweep.wandb", "sweep.show"),
    ("sweep.execute",),
    ("sweep.store",),
    ("sweep.plan",),
    ("latents",),
    ("run", "callbacks", "loggers", "convert", "lm"),
    ("bank",),
    ("saes",),
    ("metrics", "data"),
    ("ops",),
    ("schedules", "parsing"),
    ("ranges", "hub.hub_client", "hub.hub_place", "hub.snapshots"),
    ("files", "bars", "errors", "hook_names", "version"),
)
"""Rooms and single modules, the uppermost first; `` is saelight itself, the front door. Those of one layer may import each
other, as far as no circle comes of it."""


def layer(module: str) -> int:
    """The place of a module's innermost room in LAYERS, from above."""
    room = module
    while not any(room in rooms for rooms in LAYERS):
        room, dot, _ = room.rpartition(".")
        assert dot, f"{module} has no place in LAYERS"
    return next(i for i, rooms in enumerate(LAYERS) if room in rooms)


def test_imports_run_downwards():
    arrows = {(module, other) for module, imported in import_graph().items() for other in imported}
    assert {(module, other) for module, other in arrows if layer(other) < layer(module)} == set()


def test_no_import_goes_in_a_circle():
    assert circle(import_graph()) == []


def test_no_two_modules_share_a_bare_name():
    names = Counter(name.rpartition(".")[2] for name, path in modules().items() if path.name != "__init__.py")
    assert [name for name, n in names.items() if n > 1] == []


@pytest.mark.parametrize("room", ["saes", "ops", "metrics", "data"])
def test_rooms_without_lightning(room):
    ours = [name for name in modules() if name.split(".")[0] == room and name not in ("data.datamodule", "data.sources")]
    assert [name for name in ours if packages(name) & {"lightning", "pytorch_lightning"}] == []


LIGHT = ("sweep_commands", "convert_command", "evaluate_command", "serve_command")


def test_a_sweep_and_a_server_load_neither_torch_nor_lightning():
    checks = {f"sweep.plan.{name}" for name in ("classes", "identity", "length", "resolve", "sae_checks")}
    quick = [name for name in modules() if name.split(".")[0] == "sweep" and name not in checks]
    served = [name for name in modules() if name.split(".")[0] == "serve"]
    heavy = {
        name: packages_loaded(name) & {"torch", "lightning"}
        for name in [*quick, *served, "cli.main", *(f"cli.{name}" for name in LIGHT)]
    }
    assert {name: found for name, found in heavy.items() if found} == {}


def test_no_test_module_imports_another():
    paths = [*Path(__file__).parent.rglob("*.py")]
    imported = {name for path in paths for name in imported_names(ast.parse(path.read_text()))}
    parts = {part for name in imported for part in name.split(".")}
    tests = {path.stem for path in paths if path.stem.startswith("test_")} | {"conftest"}
    assert "test_layers" in tests
    assert parts & tests == set()
