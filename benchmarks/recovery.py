"""How well SAEs recovered known features: one row each, beside controls that learned nothing and that know everything.

Shapes: B batch, D d_in, F d_sae, G true features.
"""

from typing import NamedTuple

import torch

import saelight
from saelight.metrics import detection_metrics, mcc, mmcs, nearest, token_metrics
from saelight.saes import SAE

RANDOM, TRUE = "random directions, untrained", "true directions, untrained"
BARS = {"mcc": 0.5, "mmcs": 0.5, "f1": 0.25, "fvu": 0.25}
"""How far an SAE must be at least, between the random dictionary (0) and perfection (1), to beat it by far. F1 and FVU ask
for less: superposition alone keeps F1 low, an L1 penalty alone FVU high."""
LOW_BARS = {"mcc": 0.0, "mmcs": 0.0, "fvu": 0.0}
"""For an SAE without any sparsity per token: it must be better than the random dictionary, but F1 can say nothing."""


class Row(NamedTuple):
    """What the table says of one SAE."""

    l0: float
    fvu: float
    f1: float
    precision: float
    recall: float
    mcc: float
    mmcs: float
    dead: float
    shrinkage: float
    """1 - γ: how much shorter reconstructions are than the best multiple of them."""


@torch.no_grad()
def measure(sae: SAE, data: saelight.SyntheticDataModule, batch: int = 1024) -> Row:
    """The row of an SAE, over the validation rows.

    F1, precision, recall and MMCS are over the most frequent features, as many as there are latents; MCC over all.
    """
    device, signed = sae.W_dec.device, getattr(sae, "signed", False)
    truth_GD = data.features.to(sae.W_dec)
    pairs = nearest(truth_GD[: sae.d_sae], sae.W_dec, signed)
    tokens = token_metrics(sae.d_in, sae.d_sae).to(device)
    detected = detection_metrics(pairs, signed).to(device)
    rows, start, stop = data.opened.val
    for first in range(start, stop, batch):
        x_BD = torch.empty(min(batch, stop - first), sae.d_in)
        rows.read(first, x_BD)
        x_BD = data.on_after_batch_transfer(x_BD.to(device), 0)
        f_BF = sae.encode(x_BD)
        tokens.update(x=x_BD, x_hat=sae.decode(f_BF), f=f_BF)
        detected.update(active=rows.active(first, len(x_BD)).to(device), f=f_BF)
    found = {name: value.item() for name, value in (tokens.compute() | detected.compute()).items()}
    values = {name: found[name] for name in Row._fields if name in found}
    return Row(
        **values,
        mcc=mcc(truth_GD, sae.W_dec).item(),
        mmcs=mmcs(truth_GD[: sae.d_sae], sae.W_dec, signed).item(),
        shrinkage=1 - found["reconstruction_bias"],
    )


@torch.no_grad()
def controls(data: saelight.SyntheticDataModule, d_sae: int, k: int, device: torch.device) -> dict[str, SAE]:
    """TopK SAEs that never trained, L0 as of the others: tied random unit rows, and the true directions themselves."""
    sample_ND = data.init_sample()
    untrained = saelight.TopK(d_sae=d_sae, k=k, decoder="unit", b_dec_init="mean")
    saes = {name: untrained.build(data.d_in) for name in (RANDOM, TRUE)}
    saes[RANDOM].initialise(sample_ND)
    known = data.features[:d_sae]
    saes[TRUE].W_dec[: len(known)] = known
    saes[TRUE].W_enc.copy_(saes[TRUE].W_dec.T)
    return {name: sae.to(device) for name, sae in saes.items()}


def shortcomings(row: Row, chance: Row, bars: dict[str, float] = BARS) -> list[str]:
    """Why an SAE cannot be said to beat the random dictionary, `chance`, by far; none if it does. NaN is short of all."""
    short = []
    for name, share in bars.items():
        value, low, best = getattr(row, name), getattr(chance, name), float(name != "fvu")
        bar = low + share * (best - low)
        if not (value > bar if best else value < bar):
            short.append(f"{name} {value:.3f} is not {'above' if best else 'below'} {bar:.3f}")
    return short


def table(rows: dict[str, Row]) -> str:
    """Markdown, a line per SAE."""
    head = "| variant | L0 | FVU | F1 | precision | recall | MCC | MMCS | dead % | shrinkage % |"
    lines = [head, "|---" + "|---:" * 9 + "|"]
    for name, r in rows.items():
        shares = " | ".join(f"{value:.3f}" for value in (r.fvu, r.f1, r.precision, r.recall, r.mcc, r.mmcs))
        lines.append(f"| {name} | {r.l0:.2f} | {shares} | {100 * r.dead:.1f} | {100 * r.shrinkage:.1f} |")
    return "\n".join(lines)
