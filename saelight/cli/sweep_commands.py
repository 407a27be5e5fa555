"""`saelight sweep …` and `saelight devices`. Nothing heavy is imported before a command needs it."""

import argparse
import sys
from pathlib import Path
from typing import Any

from saelight.errors import UserError
from saelight.parsing import yaml_files


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        print(f"saelight: error: {message} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def run(args: list[str]) -> int:
    """One sweep command; its exit code."""
    given = _parser().parse_args(args)
    return given.run(given)


def devices(args: list[str]) -> int:
    """Print the devices of this machine."""
    _Parser(
        prog="saelight devices",
        description="The devices of this machine: CUDA with name and memory, MPS, CPU.",
        allow_abbrev=False,
    ).parse_args(args)
    from saelight.sweep.execute.devices import find, listing

    print(listing(find()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="saelight sweep", description="Train what a sweep file describes.", allow_abbrev=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    expand = _command(commands, "expand", "write a sweep's configs, one per group, and its index", _expand)
    expand.add_argument("file", help="a sweep file: YAML, or Python with make_cfgs()")
    _choosing(expand)
    start = _command(commands, "run", "train a sweep: a file, or the folder of one", _run)
    start.add_argument("file", metavar="FILE|FOLDER", help="a sweep file, or the folder it was expanded into")
    _choosing(start)
    start.add_argument("--resume", action="store_true", help="go on in a folder that was begun: finished points stay")
    start.add_argument("--dry-run", action="store_true", help="say what would run where, with memory, disk and time")
    start.add_argument(
        "--launcher",
        choices=["local", "ddp", "slurm"],
        default="local",
        help="local: a run per device; ddp: each run on all devices; slurm: a job array",
    )
    start.add_argument("--max-parallel", type=_count, metavar="N", help="runs at once (default: one per device)")
    start.add_argument("--journal", metavar="FILE", help="of a search: the study's file, which several runners may share")
    slurm = start.add_argument_group("Slurm")
    slurm.add_argument("--partition", help="the partition")
    slurm.add_argument("--account", help="the account")
    slurm.add_argument("--time", help="the time limit of a job, as sbatch takes it (1-12:00:00, or minutes)")
    slurm.add_argument("--gpus", type=_whole, metavar="N", help="GPUs of a job (default 1; 0 for none)")
    slurm.add_argument("--cpus", type=_count, metavar="N", help="cores of a job")
    slurm.add_argument("--sbatch", action="append", default=[], metavar="KEY=VALUE", help="any other option of sbatch")
    slurm.add_argument("--no-wait", action="store_true", help="return when the jobs are submitted")
    wandb = _command(commands, "export-wandb", "write a file for `wandb sweep`; `wandb agent`s train it", _wandb)
    wandb.add_argument("file", metavar="FILE|FOLDER", help="a sweep file, or the folder it was expanded into")
    _choosing(wandb)

    state = _command(commands, "status", "a table of every SAE: state, device, step, loss, L0, FVU, ETA", _status)
    state.add_argument("folder", help="a sweep's folder")
    state.add_argument("--watch", action="store_true", help="again every two seconds, until all has ended")
    result = _command(commands, "results", "bring results.csv, .json and .parquet up to date", _results)
    result.add_argument("folder", help="a sweep's folder")
    draw = _command(commands, "plot", "draw the Pareto front, time, sensitivity and throughput", _plot)
    draw.add_argument("folder", help="a sweep's folder")
    return parser


def _command(commands: Any, name: str, text: str, call: Any) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
    parser.set_defaults(run=call)
    return parser


def _choosing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="FOLDER", help="the sweep's folder (default: runs/<the sweep's name>)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="set a key for all points, as --set sae.lr=5e-4: before sweep and base",
    )
    parser.add_argument(
        "--filter", metavar="TEXT", help="only points whose name holds TEXT, or fits it as a glob; gated,relu: either"
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N points")
    parser.add_argument("--max-saes", type=_count, metavar="N", help="most SAEs that share a run")
    parser.add_argument(
        "--devices",
        default="auto",
        metavar="LIST",
        help="auto (all accelerators, or the CPU), or a worker each: cuda:0,cuda:1 or cpu,cpu",
    )


def _count(text: str, least: int = 1) -> int:
    if not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return int(text)


def _whole(text: str) -> int:
    return _count(text, 0)


def _overrides(given: argparse.Namespace) -> dict[str, Any]:
    overrides = {}
    for text in given.overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: write --set KEY=VALUE, as --set sae.lr=5e-4")
        overrides[key] = yaml_files.parse(value)
    return overrides


def _request(given: argparse.Namespace, **more: Any):
    from saelight.sweep.execute.session import Request

    return Request(
        given.file, given.out, _overrides(given), given.filter, given.limit, given.max_saes, given.devices, **more
    )


def _session(given: argparse.Namespace, **more: Any):
    from saelight.sweep.execute.session import Session

    return Session(_request(given, **more))


def _expand(given: argparse.Namespace) -> int:
    session = _session(given)
    with session.locked():
        session.prepare()
        session.folder.commit(session.index)
    print(session.summary())
    return 0


def _run(given: argparse.Namespace) -> int:
    session = _session(
        given, launcher=given.launcher, parallel=given.max_parallel, resume=given.resume, journal=given.journal
    )
    if given.dry_run:
        print(session.prepare().dry_run())
        return 0
    with session.locked():
        return session.prepare().run(vars(given))


def _wandb(given: argparse.Namespace) -> int:
    from saelight.sweep.wandb.export_wandb import export

    print(export(_request(given)))
    return 0


def _status(given: argparse.Namespace) -> int:
    from saelight.sweep.show.status import status, watch
    from saelight.sweep.store.sweep_folder import SweepFolder

    folder = SweepFolder.existing(given.folder)
    if given.watch:
        watch(folder)
    else:
        print(status(folder))
    return 0


def _plot(given: argparse.Namespace) -> int:
    from saelight.sweep.show.plot import plot
    from saelight.sweep.store.result_rows import collect
    from saelight.sweep.store.sweep_folder import SweepFolder

    folder = SweepFolder.existing(given.folder)
    for path in plot(collect(folder, folder.read()), folder.path / "figures"):
        print(path)
    return 0


def _results(given: argparse.Namespace) -> int:
    from saelight.sweep.execute.launch.reconcile import settle
    from saelight.sweep.store import result_files
    from saelight.sweep.store.sweep_folder import SweepFolder

    folder = SweepFolder.existing(given.folder)
    settle(folder)
    rows = result_files.write(folder, folder.read())
    written = ["results.csv", "results.json"]
    if result_files.writes_parquet():
        written.append("results.parquet")
    else:
        print("saelight: no Parquet without pyarrow: pip install 'saelight[parquet]'", file=sys.stderr)
    done = sum(row["state"] == "finished" for row in rows)
    print(f"{done} of {len(rows)} SAEs have finished: {', '.join(str(Path(given.folder) / name) for name in written)}")
    return 0
