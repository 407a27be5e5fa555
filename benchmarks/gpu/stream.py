"""Real shards through the real stream: rows a second alone, and a step that reads from it."""

import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import saelight
from benchmarks.gpu.training import Bench, configs, timed
from benchmarks.speed.measure import activations
from saelight.data.shards.writer import ShardWriter
from saelight.saes import SAEConfig


def run(bench: Bench) -> None:
    _, d_sae, batch, k = bench.size
    topk = configs(d_sae, k)["topk"]
    for dtype in ("bfloat16", "float32") if bench.cuda else ("bfloat16",):
        folder = bench.scratch / dtype
        bench.results.measure("shards", dtype, partial(_write, bench, folder, dtype), needs=8)
        data = partial(saelight.ActivationDataModule, str(folder), batch_size=batch, val_fraction=0)
        bench.results.measure("stream alone", dtype, partial(_read, bench, data), needs=5)
        for name, saes in {"one topk": {"topk": topk}, "nine topk": bench.nine(topk)}.items():
            bench.results.measure("training on shards", f"{name}, {dtype}", partial(_train, bench, saes, data), needs=7)


def _write(bench: Bench, folder: Path, dtype: str) -> dict[str, Any]:
    d_in, rows = bench.size.d_in, 160 * 1024 if bench.cuda else 2048
    start = time.perf_counter()
    with ShardWriter(folder, model="random", hook="none", dtype=dtype, d_in=d_in) as writer:
        for seed in range(4):
            writer.append(activations(rows // 4, d_in, seed))
    return {"s": time.perf_counter() - start, "MB": sum(file.stat().st_size for file in folder.iterdir()) / 1e6}


def _read(bench: Bench, make: Callable[[], saelight.ActivationDataModule]) -> dict[str, float]:
    data = make()
    batches = iter(data.train_dataloader())
    for _ in islice(batches, 4):
        pass
    n = 30 if bench.cuda else 4
    start = time.perf_counter()
    for _ in islice(batches, n):
        pass
    seconds = time.perf_counter() - start
    return {"rows_per_s": round(n * data.batch_size / seconds), "ms_a_batch": seconds / n * 1e3}


def _train(bench: Bench, saes: dict[str, SAEConfig], make: Callable[[], saelight.ActivationDataModule]) -> dict[str, Any]:
    return timed(bench, saes, data=make())
