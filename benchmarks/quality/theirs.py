"""A peer trains: its own steps, one SAE at a time, on the rows that all libraries get."""

import contextlib
import io
import time

from tqdm import tqdm

from benchmarks.peers import binding
from benchmarks.peers.learning import Task
from benchmarks.quality.data import Data
from benchmarks.quality.evaluate import evaluate
from benchmarks.quality.runs import Result, Run


def train(run: Run, data: Data) -> Result:
    steps = run.tokens // run.batch
    task = Task(run.variant, data.d_in, run.d_sae, run.l0, run.coefficient, run.lr, steps, run.batch, run.seed)
    learner = binding(run.library).learner(task, data.sample())
    batches = tqdm(data.training(run.batch, run.seed), total=steps, desc=title(run), mininterval=5, leave=False)
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        for x_BD in batches:
            learner.step(x_BD)
    seconds = time.process_time() - start
    sae = learner.inference()
    held_out, never_fired = evaluate(sae, data.held_out(), data.measured_rows)
    other, _ = evaluate(sae, data.other(), data.measured_rows)
    return Result(run, held_out, other, never_fired, seconds, together=1)


def title(run: Run) -> str:
    """A run in a few words."""
    lr = "default lr" if run.lr is None else f"lr {run.lr:g}"
    penalty = "" if run.coefficient is None else f" λ {run.coefficient:.3g}"
    return f"{run.data} {run.library} {run.variant} L0 {run.l0} {lr}{penalty} seed {run.seed}"
