"""The table of docs/convert.md says what is written and what is refused."""

import json
import re
from pathlib import Path

import pytest

import saelight
from saelight.convert import write
from saelight.errors import UserError
from saelight.saes import GatedHardConcrete, HardConcrete, MatchingPursuit
from tests.support.conversions import CONFIGS, D, F, K, trained

PAGE = Path(__file__).parents[2] / "docs" / "convert.md"
SAES = {
    "ReLU": CONFIGS["relu"],
    "Gated": CONFIGS["gated"],
    "JumpReLU": CONFIGS["jump_relu"],
    "TopK": CONFIGS["topk"],
    "AbsTopK": CONFIGS["abs_topk"],
    "BatchTopK": CONFIGS["batch_topk"],
    "MatchingPursuit": MatchingPursuit(d_sae=F, k=K),
    "HardConcrete": HardConcrete(d_sae=F),
    "GatedHardConcrete": GatedHardConcrete(d_sae=F),
}


def table() -> dict[tuple[str, bool, str], str]:
    """By variant, whether it transcodes, and format: the cell."""
    section = PAGE.read_text().split("## What maps to what")[1].split("\n## ")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    formats = lines[0][1:]
    return {
        (re.findall(r"`(\w+)`", line[0])[0], "transcoder" in line[0], format): cell
        for line in lines[2:]
        for format, cell in zip(formats, line[1:], strict=True)
    }


CELLS = table()


def test_every_variant_stands_in_it():
    assert {(variant, False) for variant in SAES} <= {cell[:2] for cell in CELLS}
    assert {(variant, True) for variant in SAES if variant != "MatchingPursuit"} <= {cell[:2] for cell in CELLS}
    known = {
        name
        for name in vars(saelight.saes)
        if isinstance(kind := getattr(saelight.saes, name), type) and issubclass(kind, saelight.saes.SAEConfig)
    }
    assert known - set(SAES) == {"SAEConfig", "Penalised", "Matryoshka"}


@pytest.mark.parametrize(("variant", "transcodes", "to"), CELLS)
def test_a_cell_is_true(variant, transcodes, to, tmp_path):
    sae = trained(SAES[variant], d_out=D if transcodes else None, layer=0)
    if CELLS[variant, transcodes, to] == "–":
        with pytest.raises(UserError, match=rf"{variant}( transcoder)? has no form in .*: "):
            write(sae, tmp_path / "out", to=to)
        assert list(tmp_path.iterdir()) == []
        return
    write(sae, tmp_path / "out", to=to)
    configs = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json") if "saelight" not in path.name]
    said = str(configs) or to
    assert CELLS[variant, transcodes, to] in said or to == "circuit_tracer"
