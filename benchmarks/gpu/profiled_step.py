"""Where a step's time goes: launches, waits of the host for the device by line of saelight, and the dearest kernels."""

import time
import traceback
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.profiler import ProfilerActivity, profile

import saelight
from benchmarks.gpu.training import AtStart, Batches, Bench, configs, fit, set_sparsity
from saelight.ops.dispatch import code_for
from saelight.saes import SAEConfig

STEPS = 3
LAUNCHES = {"cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx"}
WAITS = {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"}


def run(bench: Bench) -> None:
    """Dense as it comes, or with SAELIGHT_TRITON=1 sparse."""
    saes = configs(bench.size.d_sae, bench.size.k)
    chosen = {name: {name: saes[name]} for name in ("topk", "relu", "batch_topk", "jump_relu")}
    chosen["nine topk"] = bench.nine(saes["topk"])
    if code_for(torch.empty(0, device=bench.device)) != "triton":
        chosen["hard_concrete"] = {"hard_concrete": saes["hard_concrete"]}
    for name, together in bench.some(chosen).items():
        bench.results.measure("a step", name, partial(_profiled, bench, name, together), needs=8)


class _Profile(L.Callback):
    """Reports the waits of the last step of the warm-up, and profiles those after it."""

    def __init__(self, bench: Bench, warm_up: int) -> None:
        self.bench, self.warm_up = bench, warm_up
        self.waits: Counter[str] = Counter()
        self.profile = profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * bench.cuda])
        self.seconds = 0.0

    def on_train_batch_start(self, trainer: L.Trainer, bank: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.warm_up - 1 and self.bench.cuda:
            self._show = warnings.showwarning
            warnings.simplefilter("always")
            warnings.showwarning = self._note
            torch.cuda.set_sync_debug_mode("warn")
        if batch_idx == self.warm_up:
            self.bench.wait()
            self.profile.start()
            self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, bank: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.warm_up - 1 and self.bench.cuda:
            torch.cuda.set_sync_debug_mode("default")
            warnings.showwarning = self._show
        if batch_idx == self.warm_up + STEPS - 1:
            self.bench.wait()
            self.seconds = time.perf_counter() - self._start
            self.profile.stop()

    def _note(self, message: Warning | str, *_: Any, **__: Any) -> None:
        if "synchronizing" in str(message):
            package = str(Path(saelight.__file__).parent)
            stack = [frame for frame in traceback.extract_stack() if frame.filename.startswith(package)]
            where = f"{Path(stack[-1].filename).name}:{stack[-1].lineno} {stack[-1].line}" if stack else "elsewhere"
            self.waits[where] += 1


def _profiled(bench: Bench, name: str, saes: dict[str, SAEConfig]) -> dict[str, Any]:
    d_in, _, batch, _ = bench.size
    warm_up = 6 if bench.cuda else 2
    seen = _Profile(bench, warm_up)
    fit(bench, saes, Batches(bench, d_in, batch), warm_up + STEPS, callbacks=[AtStart(set_sparsity), seen])
    averages = seen.profile.key_averages()
    with (bench.scratch.parent / f"{bench.scratch.name}.txt").open("a") as file:
        table = averages.table(sort_by=f"self_{bench.device}_time_total", row_limit=30, max_name_column_width=70)
        file.write(f"# {name}\n{table}\n\n")
    row: dict[str, Any] = {"ms_with_profiler": seen.seconds / STEPS * 1e3}
    if not bench.cuda:
        return row | {"operators": sum(event.count for event in averages) / STEPS}
    kernels = [event for event in averages if event.device_type == torch.autograd.DeviceType.CUDA]
    kernels.sort(key=lambda event: event.self_device_time_total, reverse=True)
    row["device_busy_ms"] = sum(event.self_device_time_total for event in kernels) / STEPS / 1e3
    row["kernels"] = sum(event.count for event in kernels) / STEPS
    row["launches"] = sum(event.count for event in averages if event.key in LAUNCHES) / STEPS
    row["waits"] = sum(event.count for event in averages if event.key in WAITS) / STEPS
    row["waits, by line"] = dict(seen.waits.most_common())
    row["dearest_ms"] = {event.key[:90]: round(event.self_device_time_total / STEPS / 1e3, 3) for event in kernels[:10]}
    return row
