"""Real shards through the real stream: rows a second alone, and a step that reads from it."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import saelight
from benchmarks.gpu.training import Bench, configs, timed
from benchmarks.speed.measure import activations
from saelight.data.shards.writer import ShardWriter
from saelight.saes import SAEConfig

Make = Callable[[], saelight.ActivationDataModule]


def run(bench: Bench) -> None:
    _, d_sae, batch, k = bench.size
    topk = configs(d_sae, k)["topk"]
    for dtype in ("bfloat16", "float32") if bench.cuda else ("bfloat16",):
        folder = bench.scratch / dtype
        bench.results.measure("shards", dtype, partial(_write, bench, folder, dtype), needs=8)
        data = partial(saelight.ActivationDataModule, str(folder), batch_size=batch, val_fraction=0)
        for place, device in {"host": None, "device": torch.device(bench.device)}.items():
            read = partial(_read, bench, data, device)
            bench.results.measure("stream alone", f"{dtype}, gathered on the {place}", read, needs=5)
        bench.results.measure("the device gathers the host's batches", dtype, partial(_compare, bench, data), needs=5)
        for name, saes in {"one topk": {"topk": topk}, "nine topk": bench.nine(topk)}.items():
            bench.results.measure("training on shards", f"{name}, {dtype}", partial(_train, bench, saes, data), needs=7)


def _write(bench: Bench, folder: Path, dtype: str) -> dict[str, Any]:
    d_in, rows = bench.size.d_in, 160 * 1024 if bench.cuda else 2048
    start = time.perf_counter()
    with ShardWriter(folder, model="random", hook="none", dtype=dtype, d_in=d_in) as writer:
        for seed in range(4):
            writer.append(activations(rows // 4, d_in, seed))
    return {"s": time.perf_counter() - start, "MB": sum(file.stat().st_size for file in folder.iterdir()) / 1e6}


def _batches(make: Make, device: torch.device | None) -> Iterator[Tensor]:
    data = make()
    data.gathers_on = lambda: device  # type: ignore[method-assign]
    return iter(data.train_dataloader())


def _read(bench: Bench, make: Make, device: torch.device | None) -> dict[str, float]:
    batches = _batches(make, device)
    for _ in islice(batches, 4):
        pass
    n = 30 if bench.cuda else 4
    bench.wait()
    start = time.perf_counter()
    for _ in islice(batches, n):
        pass
    bench.wait()
    seconds = time.perf_counter() - start
    return {"rows_per_s": round(n * bench.size.batch / seconds), "ms_a_batch": seconds / n * 1e3}


def _compare(bench: Bench, make: Make) -> str:
    """Over more windows than are held; work on the device is under way all the while. Raises RuntimeError for other bits."""
    there, here = _batches(make, torch.device(bench.device)), _batches(make, None)
    same = torch.ones((), dtype=torch.bool, device=bench.device)
    for x_BD, y_BD in islice(zip(there, here, strict=False), 80 if bench.cuda else 8):
        x_BD.float() @ x_BD.float().T
        same &= (x_BD == y_BD.to(bench.device)).all()
    if not same:
        raise RuntimeError("a batch gathered on the device differs from the host's")
    return "bit for bit"


def _train(bench: Bench, saes: dict[str, SAEConfig], make: Make) -> dict[str, Any]:
    return timed(bench, saes, data=make())
