"""The same rows in every layout that is read, as its description says they lie; nothing of saelight writes them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

CONTEXT, CONTEXTS, D = 13, 100, 6
N = CONTEXT * CONTEXTS
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
TOKENS = np.random.default_rng(1).integers(0, 50_000, N)
PLACES = np.arange(N) % CONTEXT
DOCUMENTS = np.arange(N) // CONTEXT
COLUMNS = {"token_ids": TOKENS, "positions": PLACES, "document_ids": DOCUMENTS}


class Made(NamedTuple):
    """Files that hold X."""

    address: str
    columns: tuple[str, ...] = ()
    """Which of COLUMNS are in them."""


def npy(folder: Path) -> Made:
    np.save(folder / "x.npy", X)
    return Made(f"{folder}/x.npy")


def npy_other_bytes(folder: Path) -> Made:
    np.save(folder / "x.npy", X.astype(">f8"))
    return Made(f"{folder}/x.npy")


def npy_folder(folder: Path) -> Made:
    for i in range(11):  # x10 comes after x9
        np.save(folder / f"x{i}.npy", X[i * 120 : (i + 1) * 120])
    for name, column in COLUMNS.items():
        np.save(folder / f"{name}.npy", column)
    return Made(str(folder), ("token_ids", "positions", "document_ids"))


def npz(folder: Path) -> Made:
    np.savez(folder / "x.npz", x=X, tokens=TOKENS.reshape(CONTEXTS, CONTEXT), doc_ids=DOCUMENTS)
    return Made(f"{folder}/x.npz", ("token_ids", "document_ids"))


def safetensors(folder: Path) -> Made:
    tensors = {"mlp.out": torch.tensor(X), "mlp.in": torch.tensor(-X), "positions": torch.tensor(PLACES).short()}
    save_file(tensors, folder / "x.safetensors")
    return Made(f"{folder}/x.safetensors:mlp.out", ("positions",))


def safetensors_folder(folder: Path) -> Made:
    for i in range(3):
        save_file({"x": torch.tensor(X[i * 500 : (i + 1) * 500])}, folder / f"part-{i}.safetensors")
    (folder / "config.json").write_text("{}")
    return Made(str(folder))


def parquet_lists(folder: Path) -> Made:
    table = pa.table({"activations": pa.array(list(X.astype(np.float64))), "token_ids": TOKENS, "text": ["a"] * N})
    pq.write_table(table, folder / "x.parquet", row_group_size=333)
    return Made(f"{folder}/x.parquet", ("token_ids",))


def parquet_layers(folder: Path) -> Made:
    both = np.stack([-X, X], 1).reshape(-1)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(both), D)
    pq.write_table(pa.table({"h": lists, "layer_idx": np.tile([4, 7], N), "norm": np.ones(2 * N)}), folder / "x.parquet")
    return Made(f"{folder}/x.parquet:h@7")


def parquet_dimensions(folder: Path) -> Made:
    for i in range(2):
        part = slice(i * 700, (i + 1) * 700)
        columns = {f"d{d}": X[part, d] for d in range(D)} | {"document_id": DOCUMENTS[part]}
        pq.write_table(pa.table(columns), folder / f"x{i}.parquet")
    return Made(str(folder), ("document_ids",))


def saev(folder: Path) -> Made:
    """Two layers of examples with a [CLS] token; 40 examples fit in a file, and the last is padded with zeros."""
    metadata = {
        "family": "dinov2",
        "ckpt": "vit",
        "layers": [11, 23],
        "content_tokens_per_example": CONTEXT - 1,
        "cls_token": True,
        "d_model": D,
        "n_examples": CONTEXTS,
        "max_tokens_per_shard": 2 * 40 * CONTEXT + 5,
        "data": "gASVAAAA",
        "dtype": "float32",
        "protocol": "2.1",
    }
    (folder / "metadata.json").write_text(json.dumps(metadata))
    examples = np.stack([-X.reshape(CONTEXTS, CONTEXT, D), X.reshape(CONTEXTS, CONTEXT, D)], 1)
    shards = []
    for i in range(4):
        of_file = examples[i * 40 : (i + 1) * 40]
        acts = np.zeros((40, 2, CONTEXT, D), np.float32)
        acts[: len(of_file)] = of_file
        acts.tofile(folder / f"acts{i:06}.bin")
        shards.append({"name": f"acts{i:06}.bin", "n_examples": len(of_file)})
    (folder / "shards.json").write_text(json.dumps(shards))
    return Made(f"{folder}@23", ("positions", "document_ids"))


def sae_lens(folder: Path) -> Made:
    """Three Arrow streams whose names say a wrong number of files, as SAELens leaves them; one of two record batches."""
    names = [f"data-{i:05d}-of-00004.arrow" for i in range(3)]
    for name, (start, stop) in zip(names, [(0, 40), (40, 60), (60, 100)], strict=True):
        write_arrow(folder / name, start, stop)
    write_arrow(folder / "data-00009-of-00004.arrow", 0, 7)  # not listed: not read
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], "_split": None}))
    (folder / "dataset_info.json").write_text("{}")
    return Made(str(folder), ("token_ids", "positions"))


def write_arrow(path: Path, start: int, stop: int, compression: str | None = None) -> None:
    """Contexts [start, stop) as an Arrow stream."""
    rows = X.reshape(CONTEXTS, CONTEXT, D)[start:stop]
    inner = pa.ListArray.from_arrays(np.arange(0, rows.size + 1, D, dtype=np.int32), pa.array(rows.reshape(-1)))
    contexts = pa.ListArray.from_arrays(np.arange(0, len(inner) + 1, CONTEXT, dtype=np.int32), inner)
    ids = pa.FixedSizeListArray.from_arrays(pa.array(TOKENS[start * CONTEXT : stop * CONTEXT].astype(np.int32)), CONTEXT)
    table = pa.table({"blocks.3.hook_resid_post": contexts, "token_ids": ids})
    with pa.ipc.new_stream(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as stream:
        stream.write_table(table, max_chunksize=25)


def openmoss(folder: Path) -> Made:
    """Contexts of 17 tokens, four of them padding that the mask leaves out; chunks of two ranks."""
    hook = folder / "blocks.3.hook_resid_post"
    hook.mkdir()
    for rank, (start, stop) in enumerate([(0, 60), (60, 100)]):
        for chunk, first in enumerate(range(start, stop, 20)):
            save_file(chunk_of(first, first + 20), hook / f"shard-{rank}-chunk-{chunk:08d}.safetensors")
            (hook / f"shard-{rank}-chunk-{chunk:08d}.meta.json").write_text("[]")
    return Made(str(folder), ("token_ids", "positions"))


def chunk_of(start: int, stop: int, padding: int = 4) -> dict[str, torch.Tensor]:
    """Contexts [start, stop) with padding behind each."""
    n, long = stop - start, CONTEXT + padding
    x, tokens, mask = torch.full((n, long, D), 1e4), torch.zeros(n, long, dtype=torch.long), torch.zeros(n, long).int()
    x[:, :CONTEXT] = torch.tensor(X.reshape(CONTEXTS, CONTEXT, D)[start:stop])
    tokens[:, :CONTEXT] = torch.tensor(TOKENS.reshape(CONTEXTS, CONTEXT)[start:stop])
    mask[:, :CONTEXT] = 1
    return {"activation": x, "tokens": tokens, "mask": mask, "attention_mask": mask.clone()}


def memmaps(folder: Path) -> Made:
    module = folder / "layer_3_out"
    module.mkdir()
    for i, (start, stop) in enumerate([(0, 900), (900, N)]):
        X[start:stop].tofile(module / f"shard_{i}.memmap")
        (module / f"shard_{i}.meta").write_text(json.dumps({"shape": [stop - start, D], "dtype": "torch.float32"}))
    config = {"shard_count": 2, "total_size": N, "d_model": D, "store_tokens": True, "store_sequence_ranges": True}
    (module / "config.json").write_text(json.dumps(config))
    torch.save(torch.tensor(TOKENS), folder / "tokens.pt")
    torch.save(torch.arange(0, N + 1, CONTEXT), folder / "sequence_ranges.pt")
    return Made(str(module), ("token_ids", "positions", "document_ids"))


LAYOUTS: dict[str, Callable[[Path], Made]] = {
    maker.__name__: maker
    for maker in (
        npy,
        npy_other_bytes,
        npy_folder,
        npz,
        safetensors,
        safetensors_folder,
        parquet_lists,
        parquet_layers,
        parquet_dimensions,
        saev,
        sae_lens,
        openmoss,
        memmaps,
    )
}
