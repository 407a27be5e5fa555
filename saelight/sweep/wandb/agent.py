"""What `wandb agent` starts: `python -m saelight.sweep.wandb.agent FOLDER ARGUMENTS.json`.

`saelight sweep export-wandb` writes that command. The file has what W&B chose: `{"group": "group-003"}`, or one point's
parameters, which become a group of the folder, of one SAE. Either way the group is trained as every launcher trains it, with
W&B added to its logger. Light: a parent that waits.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.parsing import yaml_files
from saelight.sweep.execute.child import PARENT, end_with_parent
from saelight.sweep.plan.names import name_point
from saelight.sweep.plan.points import Point, axes
from saelight.sweep.store.journal import Journal
from saelight.sweep.store.runner_lock import only_runner
from saelight.sweep.store.sweep_folder import Group, SweepFolder
from saelight.sweep.wandb.export_wandb import SWEEP_FILE
from saelight.sweep.wandb.logger_settings import with_wandb

_WAIT = 60.0
"""Seconds to wait for other agents that add their points to the folder."""


def main(args: list[str]) -> int:
    """Train what W&B chose; the exit code."""
    path, file = args
    run = os.environ.get("WANDB_RUN_ID")
    end_with_parent()
    try:
        folder = SweepFolder.existing(path)
        given = json.loads(Path(file).read_text())
        group = _group(folder, given["group"]) if given.keys() == {"group"} else _new_group(folder, given, run)
    except UserError as error:
        print(f"saelight: error: {error}", file=sys.stderr)
        return 1
    if folder.finished(group.id):
        print(f"{group.id} has finished before: its results are in {folder.run(group.id)}", flush=True)
        return 0
    return _train(folder, group, run)


def _group(folder: SweepFolder, name: str) -> Group:
    index = folder.read()
    if name not in index.groups:
        raise UserError(f"{folder.path} has no {name} any more: export the sweep again, and make a new one of it")
    folder.refuse_edited(index)
    return index.groups[name]


def _new_group(folder: SweepFolder, settings: dict[str, Any], run: str | None) -> Group:
    """The point of these parameters: a group of its own for each W&B run, which may come back when it was interrupted."""
    from saelight.sweep.plan import spec
    from saelight.sweep.plan.resolve import resolve  # torch

    sweep = spec.read(folder.path / SWEEP_FILE)
    vary = {key for axis in axes(sweep.root) if len(axis.rows) > 1 or axis.distribution for key in axis.keys}
    resolved = resolve(sweep, [Point(name_point(settings, [key for key in settings if key in vary]), settings, 0)])
    if resolved.missing:
        raise UserError(resolved.missing[0])
    with _locked(folder):
        index = folder.read()
        for event in Journal(folder.path).events():
            if run is not None and event.get("wandb") == run and event["group"] in index.groups:
                return index.groups[event["group"]]
        group = folder.add_point(index, resolved)
        folder.commit(index)
    return group


@contextlib.contextmanager
def _locked(folder: SweepFolder) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        end = time.monotonic() + _WAIT
        while True:
            try:
                stack.enter_context(only_runner(folder))
                break
            except UserError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
        yield


def _train(folder: SweepFolder, group: Group, run: str | None) -> int:
    """Start the group's child and wait for its end; told to stop, tell it once: a second word would cost its checkpoint."""
    stopped: list[int] = []

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        if len(stopped) == 1:
            child.send_signal(signal.SIGTERM)

    logger = with_wandb((yaml_files.read(folder.yaml(group.id)).get("trainer") or {}).get("logger"))
    command = [
        sys.executable,
        "-m",
        "saelight.sweep.execute.child",
        str(folder.path),
        group.id,
        f"--trainer.logger={json.dumps(logger)}",
    ]
    journal = Journal(folder.path)
    journal.add(group.id, "submitted", wandb=run, host=socket.gethostname())
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=os.environ | {PARENT: str(os.getpid())})
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    code = child.wait()
    if folder.finished(group.id):
        journal.add(group.id, "finished")
    elif stopped:
        journal.add(group.id, "interrupted")
        # The agent gives up after some runs that fail, and one that W&B stops early has not.
        return 0
    else:
        journal.add(group.id, "failed", error=f"exit code {code}: see the agent's output")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
