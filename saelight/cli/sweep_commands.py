"""`saelight sweep …` and `saelight devices`. Nothing heavy is imported before a command needs it."""

import argparse
import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from saelight.errors import UserError
from saelight.parsing import yaml_files

if TYPE_CHECKING:
    from saelight.sweep.execute.session import Request, Session
from saelight.parsing.arguments import Parser, count

_UNUSABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}
"""What the system says of a path that nothing can be read from or written to."""


def run(args: list[str]) -> int:
    """One sweep command; its exit code."""
    given = _parser(_launcher_in(args)).parse_args(args)
    try:
        return given.run(given)
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise
        # pyarrow's has the path in its text.
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise UserError(f"{said}: give a sweep's folder that can be read and written (--out FOLDER)") from None


def _parser(launcher: str = "local") -> argparse.ArgumentParser:
    parser = Parser(prog="saelight sweep", description="Train what a sweep file describes.", allow_abbrev=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    expand = _command(commands, "expand", "write a sweep's configs, one per group, and its index", _expand)
    expand.add_argument("file", help="a sweep file: YAML, or Python with make_cfgs()")
    _choosing(expand)
    # Launchers may have options of one name.
    start = _command(commands, "run", "train a sweep: a file, or the folder of one", _run, conflict_handler="resolve")
    _run_options(start, launcher)
    wandb = _command(commands, "export-wandb", "write a file for `wandb sweep`; `wandb agent`s train it", _wandb)
    wandb.add_argument("file", metavar="FILE|FOLDER", help="a sweep file, or the folder it was expanded into")
    _choosing(wandb)

    state = _command(commands, "status", "a table of every SAE: state, device, step, loss, L0, FVU, ETA", _status)
    state.add_argument("folder", help="a sweep's folder")
    state.add_argument("--watch", action="store_true", help="again every two seconds, until all has ended")
    result = _command(commands, "results", "bring results.csv, .json and .parquet up to date", _results)
    result.add_argument("folder", help="a sweep's folder")
    good = _command(commands, "best", "the best SAEs of each variant, by a metric, at an L0 or along the front", _best)
    good.add_argument("folder", help="a sweep's folder, or a run's")
    good.add_argument("--metric", default="fvu", metavar="NAME", help="of a validation (default: fvu)")
    good.add_argument("--at-l0", type=float, metavar="L0", help="only SAEs with at most this L0 (and 5 %% grace)")
    both = _command(commands, "compare", "two sweeps' FVU at the same L0s, by variant", _compare)
    both.add_argument("first", help="a sweep's folder, or a run's")
    both.add_argument("second", help="another one")
    draw = _command(commands, "plot", "draw the Pareto front, time, sensitivity and throughput", _plot)
    draw.add_argument("folder", help="a sweep's folder")
    return parser


def _command(commands: Any, name: str, text: str, call: Any, **more: Any) -> argparse.ArgumentParser:
    description = text[0].upper() + text[1:] + "."
    parser = commands.add_parser(name, help=text, description=description, allow_abbrev=False, **more)
    parser.set_defaults(run=call)
    return parser


def _run_options(parser: argparse.ArgumentParser, launcher: str) -> None:
    from saelight.sweep.execute.launch import LAUNCHERS, find

    # The last of a name holds: the chosen launcher's come after the others', and the command's own after all.
    for other in [*(name for name in LAUNCHERS if name != launcher), launcher]:
        find(other).add_options(parser)
    parser.add_argument("file", metavar="FILE|FOLDER", help="a sweep file, or the folder it was expanded into")
    _choosing(parser)
    parser.add_argument("--resume", action="store_true", help="go on in a folder that was begun: finished points stay")
    parser.add_argument("--dry-run", action="store_true", help="say what would run where, with memory, disk and time")
    parser.add_argument(
        "--cluster",
        metavar="FIGURES",
        help="with --dry-run: what it would take on machines that are not here, gpus=64,tflops=300,memory_gb=80,gb_per_s=2",
    )
    known = "; ".join(f"{name}: {known.summary}" for name, known in LAUNCHERS.items())
    parser.add_argument("--launcher", default="local", metavar="NAME", help=f"{known}; or the class path of your own")
    parser.add_argument("--max-parallel", type=count, metavar="N", help="runs at once (default: one per device)")
    parser.add_argument("--no-wait", action="store_true", help="return when all is submitted, with a launcher that queues")
    parser.add_argument("--journal", metavar="FILE", help="of a search: the study's file, which several runners may share")


def _launcher_in(args: list[str]) -> str:
    """The launcher that a command line names: its options are part of the parser."""
    parser = Parser(prog="saelight sweep run", add_help=False, allow_abbrev=False)
    parser.add_argument("--launcher", default="local")
    return parser.parse_known_args(args)[0].launcher if args[:1] == ["run"] else "local"


def _launcher_options(given: argparse.Namespace) -> dict[str, Any]:
    """The options of the launcher that was chosen. Raises `UserError` for an option that is another's."""
    from saelight.sweep.execute.launch import LAUNCHERS

    own = _options_of(given.launcher)
    for name in LAUNCHERS:
        for key, default in _options_of(name).items():
            if key not in own and getattr(given, key) != default:
                raise UserError(f"--{key.replace('_', '-')} goes with --launcher {name}: add that, or drop it")
    return {key: getattr(given, key) for key in own}


def _options_of(launcher: str) -> dict[str, Any]:
    """The names of a launcher's own options, and their defaults."""
    from saelight.sweep.execute.launch import find

    parser = argparse.ArgumentParser(add_help=False)
    find(launcher).add_options(parser)
    return vars(parser.parse_args([]))


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
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N points")
    parser.add_argument("--max-saes", type=count, metavar="N", help="most SAEs that share a run")
    parser.add_argument(
        "--devices",
        default="auto",
        metavar="LIST",
        help="auto (all accelerators, or the CPU), or a worker each: cuda:0,cuda:1 or cpu,cpu",
    )


def _overrides(given: argparse.Namespace) -> dict[str, Any]:
    overrides = {}
    for text in given.overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: write --set KEY=VALUE, as --set sae.lr=5e-4")
        try:
            overrides[key] = yaml_files.parse(value)
        except yaml.YAMLError as error:
            raise UserError(f"--set {text}: {' '.join(str(error).split())}") from None
    return overrides


def _request(given: argparse.Namespace, **more: Any) -> "Request":
    from saelight.sweep.execute.session import Request

    return Request(
        given.file, given.out, _overrides(given), given.filter, given.limit, given.max_saes, given.devices, **more
    )


def _session(given: argparse.Namespace, **more: Any) -> "Session":
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
        given,
        launcher=given.launcher,
        launcher_options=_launcher_options(given),
        parallel=given.max_parallel,
        wait=not given.no_wait,
        resume=given.resume,
        journal=given.journal,
        cluster=given.cluster,
    )
    if given.cluster is not None and not given.dry_run:
        raise UserError("--cluster goes with --dry-run: add that, or drop it")
    if given.dry_run:
        print(session.prepare().dry_run())
        return 0
    with session.locked():
        return session.prepare().run()


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


def _best(given: argparse.Namespace) -> int:
    from saelight.sweep.show.best import best
    from saelight.sweep.store.results_table import rows_of

    print(best(rows_of(given.folder), given.metric, given.at_l0))
    return 0


def _compare(given: argparse.Namespace) -> int:
    from saelight.sweep.show.best import compare
    from saelight.sweep.store.results_table import rows_of

    print(compare(rows_of(given.first), rows_of(given.second), (given.first, given.second)))
    return 0


def _results(given: argparse.Namespace) -> int:
    from saelight.sweep.execute.launch.reconcile import reconcile_jobs
    from saelight.sweep.store import result_files
    from saelight.sweep.store.sweep_folder import SweepFolder

    folder = SweepFolder.existing(given.folder)
    reconcile_jobs(folder)
    rows = result_files.write(folder, folder.read())
    written = ["results.csv", "results.json"]
    if result_files.writes_parquet():
        written.append("results.parquet")
    else:
        print("saelight: no Parquet without pyarrow: pip install 'saelight[parquet]'", file=sys.stderr)
    done = sum(row["state"] == "finished" for row in rows)
    print(f"{done} of {len(rows)} SAEs have finished: {', '.join(str(Path(given.folder) / name) for name in written)}")
    return 0
