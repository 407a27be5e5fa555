"""Time and memory of a training step as more SAEs share the batch.

    python -m benchmarks.scaling [--variant topk] [--d_in 384] [--d_sae 3072] [--saes 1 2 4 8 16] [--steps 8] [--threads 1]
                                 [--write]

Each number of SAEs runs in a process of its own. Memory is the process's peak above what it held after its imports, beside
what cannot be done without: weights, AdamW's two moments, gradients, the batch. --write puts the table into
docs/performance.md.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from pathlib import Path

from benchmarks.pages import insert

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BATCH, K, SHARE = 2048, 32, 0.015
LEARNS_ITS_SPARSITY = ("relu", "jump_relu", "gated")


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak() -> int:
    """Bytes of memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(variant: str, saes: int, d_in: int, d_sae: int, steps: int, threads: int, answer) -> None:
    import scipy.optimize  # noqa: F401  (imported late by what starts an SAE, as is the bank by saelight's front door)
    import torch

    import saelight.bank  # noqa: F401
    from benchmarks.speed import ours
    from benchmarks.speed.measure import activations
    from saelight.ops.allocator import keep_freed_memory
    from saelight.ops.dispatch import compiled

    torch.set_num_threads(threads)
    keep_freed_memory()
    compiled()
    before = resident()
    batches = [activations(BATCH, d_in, seed) for seed in range(2)]
    share = SHARE if variant in LEARNS_ITS_SPARSITY else None
    loop = ours.bank(variant, saes, d_in, d_sae, K, batches[0], share, torch.float32)
    seconds = []
    for step in range(steps):
        start = time.perf_counter()
        loop(batches[step % 2])
        seconds.append(time.perf_counter() - start)
    weights = sum(p.nbytes for sae in loop.saes for p in sae.parameters())
    # The first steps allocate, and may still be dense.
    answer.send((statistics.median(seconds[3:]), peak() - before, 4 * weights + batches[0].nbytes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="topk")
    parser.add_argument("--d_in", type=int, default=384)
    parser.add_argument("--d_sae", type=int, default=3072)
    parser.add_argument("--saes", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    lines = ["| SAEs | ms/step | thousand SAE-tokens/s | peak memory, MB | needed, MB | ratio |", "|---:" * 6 + "|"]
    print("\n".join(lines))
    fresh = multiprocessing.get_context("spawn")
    for saes in given.saes:
        receive, send = fresh.Pipe(duplex=False)
        settings = (given.variant, saes, given.d_in, given.d_sae, given.steps, given.threads, send)
        child = fresh.Process(target=run, args=settings)
        child.start()
        seconds, memory, needed = receive.recv()
        child.join()
        cells = [f"{saes}", f"{1e3 * seconds:.0f}", f"{saes * BATCH / seconds / 1e3:.1f}"]
        cells += [f"{memory / 1e6:.0f}", f"{needed / 1e6:.0f}", f"{memory / needed:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if given.write:
        PAGE.write_text(insert(PAGE.read_text(), "scaling", "\n".join(lines)))


if __name__ == "__main__":
    main()
