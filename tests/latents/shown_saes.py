"""A run that nobody trained: SAEs on activations of made-up documents, with token ids, positions and gaps."""

import json
from pathlib import Path

import torch
import yaml

import saelight
from saelight.convert.writing import write
from saelight.data.shards.writer import ShardWriter

D_IN, ROWS, WINDOW = 8, 1500, 30
SAES = {
    "topk": saelight.TopK(d_sae=16, k=3),
    "wide": saelight.ReLU(d_sae=24, sparsity=0.1),
    "signed": saelight.AbsTopK(d_sae=12, k=2),
}


def columns() -> dict[str, torch.Tensor]:
    """Windows of 30 tokens, three a document; the first token of each is left out, and of each tenth another one too."""
    kept = [p for w in range(ROWS // 20) for p in range(1, WINDOW) if not (w % 10 == 3 and p == 12)][:ROWS]
    positions = torch.tensor(kept, dtype=torch.int32)
    begins = torch.cat([torch.zeros(1, dtype=torch.bool), positions[1:] <= positions[:-1]])
    documents = begins.cumsum(0) // 3
    tokens = torch.randint(0, 40, (ROWS,), generator=torch.Generator().manual_seed(1), dtype=torch.int32)
    return {"token_ids": tokens, "positions": positions, "document_ids": documents}


def name_tokens(sae: Path) -> None:
    """Give the tokens of collected latents texts, of which one is HTML and one obeys a terminal."""
    texts = {id: f" word{id}" for id in range(40)} | {7: "<img src=x onerror=alert(1)>", 8: "\x1b[31m\n"}
    (sae / "latents" / "tokens.json").write_text(json.dumps(texts))


def make_shards(path: Path, rows: int = ROWS, d_in: int = D_IN, model: str = "", **given: torch.Tensor) -> Path:
    """Shards of random rows, with `columns()` or what is given."""
    x_ND = torch.randn(rows, d_in, generator=torch.Generator().manual_seed(0))
    with ShardWriter(path, model=model, hook="layers.3", dtype="float32", d_in=d_in, rows_per_shard=400) as writer:
        writer.append(x_ND, **{name: column[:rows] for name, column in given.items()})
    return path


def make_run(run: Path, data: Path) -> Path:
    """The run's folder, as `fit` leaves it."""
    for i, (name, config) in enumerate(SAES.items()):
        write(config.build(D_IN, seed=i), run / "saes" / name)
    spec = {"class_path": "saelight.data.datamodule.ActivationDataModule", "init_args": {"path": str(data)}}
    (run / "config.yaml").write_text(yaml.safe_dump({"data": spec}))
    return run
