"""The `saelight` command: a light front door that imports no more than the command at hand needs."""

import atexit
import contextlib
import errno
import gc
import importlib
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from saelight.errors import UserError, did_you_mean
from saelight.version import version

TRAINING = {
    "fit": "train the SAEs of a config on one stream of activations",
    "validate": "evaluate a run's SAEs on its validation data",
    "test": "evaluate a run's SAEs on its test data",
    "predict": "write each token's strongest latents, or delphi's cache, one file per SAE",
}
OTHERS = {
    "shards": "shard_commands",
    "convert": "convert_command",
    "push": "push_command",
    "evaluate": "evaluate_command",
    "sweep": "sweep_commands",
    "latents": "latents_command",
    "report": "report_command",
    "serve": "serve_command",
    "devices": "devices_command",
}
"""The other commands, and the module of `saelight.cli` that runs each."""
USAGE = """usage: saelight COMMAND ...

Train many sparse autoencoders (SAEs) in one pass over activations.

{commands}
  shards harvest | merge | convert | filter | info | verify
             make activation shards from a model, leave out rows, describe them, check them
  convert    turn SAEs into another library's format, and back
  evaluate   judge SAEs on their language model: loss recovered, KL, L0, FVU
  push       share SAEs on the Hugging Face hub
  sweep expand | run | status | results | best | compare | plot | export-wandb
             train every SAE of a sweep file, on all devices, and collect the results
  latents collect | show | export
             what each latent fires on: contexts, tokens, neighbours
  report     one page of a run's or a sweep's SAEs that opens in any browser
  serve      that page for all runs, following their training; trains over HTTP
  devices    the devices of this machine

saelight COMMAND --help says more; saelight --version prints the version."""

Error = TypeVar("Error", bound=BaseException)
_LONGEST, _LONGEST_PLACE = 600, 300


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. A user's error is one line on stderr and a code that is not 0."""
    if args is not None:
        # One way in: the parsers read the command line themselves.
        sys.argv = ["saelight", *args]
    try:
        try:
            return _dispatch(sys.argv[1:])
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        # As `status | head` ends it. What is yet unsaid goes nowhere, or the interpreter would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        if cause := _cause(error, UserError):
            message = str(cause)
        elif _disk_full(error):
            message = f"the disk is full ({error}): free some space; what was complete is kept, --ckpt_path last continues"
        elif (system := _cause(error, OSError)) and system.filename is not None:
            name = str(system.filename)
            place = name if len(name) <= _LONGEST_PLACE else f"{name[:_LONGEST_PLACE]}…"
            message = f"{place}: {system.strerror}: give another place, or yourself the right to this one"
        elif isinstance(error, MemoryError) or "can't allocate memory" in str(error):
            message = "memory does not suffice: take fewer or narrower SAEs, or smaller batches"
        else:
            raise
    message = " ".join(message.splitlines())
    print(f"saelight: error: {message if len(message) <= _LONGEST else f'{message[:_LONGEST]}…'}", file=sys.stderr)
    return 1


def _dispatch(args: list[str]) -> int:
    command = args[0] if args else "--help"
    if command in ("-h", "--help"):
        print(USAGE.format(commands="\n".join(f"  {name:<10} {text}" for name, text in TRAINING.items())))
    elif command == "--version":
        print(f"saelight {version()}")
    elif command in TRAINING:
        if args[1:] in (["-h"], ["--help"]):
            from saelight.cli import training_help

            print(training_help.text(command, TRAINING[command]))
            return 0
        _check_configs(args[1:])
        with _uncollected():
            from saelight.cli.training import run
        run()
    elif command in OTHERS:
        if command == "evaluate":
            _check_configs(args[1:])
        return importlib.import_module(f"saelight.cli.{OTHERS[command]}").run(args[1:]) or 0
    else:
        raise UserError(f"no command {command!r}{did_you_mean(command, [*TRAINING, *OTHERS])}")
    return 0


def _check_configs(args: list[str]) -> None:
    """Raise `UserError` for a config file that is not there, before the seconds that importing torch takes."""
    for word, following in zip(args, [*args[1:], ""], strict=True):
        path = following if word == "--config" else word.partition("=")[2] if word.startswith("--config=") else ""
        if path.endswith((".yaml", ".yml", ".json")) and not os.path.exists(path):
            raise UserError(f"{path}: there is no such config file; give one that is there, or `saelight fit --help`")


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Import without the garbage collector, which would look through a million objects that stay, again and again, and take
    a fifth of the time of a start; nor does it look at them later."""
    if "torch" in sys.modules:  # a caller's own process
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        # What binds C++ would take what is frozen at the end for leaks, and say so.
        atexit.register(gc.unfreeze)


def _reader_has_gone() -> bool:
    stdout = select.poll()
    stdout.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in stdout.poll(0))


def _cause(error: BaseException | None, kind: type[Error]) -> Error | None:
    # jsonargparse wraps what a class raises when it is built in an error of its own.
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _disk_full(error: BaseException) -> bool:
    # safetensors wraps the system's error in one of its own.
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)


if __name__ == "__main__":
    sys.exit(main())
