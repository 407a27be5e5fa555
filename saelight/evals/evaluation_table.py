"""What an evaluation found, in words."""

import math
from collections.abc import Sequence
from typing import Any

from saelight.files import table

_COLUMNS = {
    "l0": ("L0", "{:.1f}"),
    "fvu": ("FVU", "{:.4f}"),
    "ce_sae": ("CE", "{:.4f}"),
    "kl_sae": ("KL", "{:.4f}"),
    "loss_recovered": ("loss recovered", "{:.4f}"),
    "loss_recovered_mean": ("of the mean", "{:.4f}"),
    "excluded": ("unspliced %", "{:.2f}"),
    "loss_recovered_all": ("spliced too", "{:.4f}"),
}


def words(rows: Sequence[dict[str, Any]]) -> str:
    """A table of SAEs that were judged in one pass, under what they share."""
    first = rows[0]
    shared = first["metrics"]
    hooks = first["hook"] + (f" → {first['target_hook']}" if first["target_hook"] else "")
    lines = [
        f"{first['model']}, {hooks}: {first['tokens']:,} tokens in {first['windows']:,} windows of {first['context']}",
        f"CE {shared['ce_clean']:.4f} clean, {shared['ce_zero']:.4f} zero-ablated, {shared['ce_mean']:.4f} mean-ablated",
    ]
    shown = {key: column for key, column in _COLUMNS.items() if any(key in row["metrics"] for row in rows)}
    cells = [["name", "variant", "d_sae", *(title for title, _ in shown.values())]]
    for row in rows:
        values = [_cell(row["metrics"].get(key), key, form) for key, (_, form) in shown.items()]
        cells.append([row["name"], row["variant"], f"{row['d_sae']:,}", *values])
    return "\n".join([*lines, table(cells, left=(0, 1))])


def chance(rows: Sequence[dict[str, Any]]) -> str | None:
    """A remark on a model that predicts no better than if every token were as likely as any other."""
    known = [row for row in rows if row["vocabulary"]]
    blind = next((row for row in known if row["metrics"]["ce_clean"] >= math.log(row["vocabulary"])), None)
    if blind is None:
        return None
    ce, guess = blind["metrics"]["ce_clean"], math.log(blind["vocabulary"])
    return (
        f"{blind['model']} predicts this text no better than chance (CE {ce:.2f}; of {blind['vocabulary']:,} tokens "
        f"{guess:.2f}): if it is trained, its tokenizer is another model's"
    )


def _cell(value: float | None, key: str, form: str) -> str:
    if value is None:
        return "-"
    return form.format(100 * value if key == "excluded" else value)
