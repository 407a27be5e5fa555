"""`saelight latents collect | show | export`. Nothing heavy is imported before its arguments are known to be right."""

import argparse
import json
import sys

from saelight.parsing.arguments import Parser, count, whole

_SORTS = ("density", "max", "similarity")
EXPORTED = ("neuronpedia", "saedashboard")


def run(args: list[str]) -> None:
    """Run one command."""
    parser = Parser(
        prog="saelight latents",
        description="What each latent of trained SAEs fires on.",
        epilog="docs/latents.md has the details.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="collect | show | export")
    _add_collect(commands.add_parser("collect", help="go through activations once, for all SAEs", allow_abbrev=False))
    _add_show(commands.add_parser("show", help="look at latents", allow_abbrev=False))
    _add_export(commands.add_parser("export", help="write them for other viewers", allow_abbrev=False))
    given = parser.parse_args(args)
    {"collect": _collect, "show": _show, "export": _export}[given.command](given)


def _add_collect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="RUN|SWEEP|SAE", help="SAEs, and folders that hold some")
    parser.add_argument(
        "--data",
        help="shards, activations in another layout, or a fit's or harvest's config, by which a model may make them; "
        "default: what the SAEs' runs were trained on",
    )
    parser.add_argument("--tokens", type=count, metavar="N", help="go through the first N tokens (default: all)")
    parser.add_argument("--seed", type=whole, default=0, help="of what is drawn at random (default: 0)")
    parser.add_argument("--tokenizer", metavar="MODEL", help="the folder or name of a tokenizer; default: the data's model")
    parser.add_argument(
        "--unembedding", metavar="MODEL", help="a causal language model, for the logits that latents promote and suppress"
    )
    parser.add_argument("--fresh", action="store_true", help="replace what was collected before")


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sae", metavar="SAE", help="an SAE's folder")
    parser.add_argument("latents", nargs="*", type=whole, metavar="N", help="latents, by number, in full")
    parser.add_argument("--search", metavar="TEXT", help="the latents that fire on this text")
    parser.add_argument("--sort", choices=_SORTS, help="the largest first: how often they fire, how strongly, how alike")
    parser.add_argument("--ascending", action="store_true", help="the smallest first; those that never fire are last")
    parser.add_argument("--limit", type=count, default=20, metavar="N", help="latents of a table, contexts of one (20)")
    parser.add_argument("--json", action="store_true", help="all that is known of them, a line of JSON each")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sae", metavar="SAE", help="an SAE's folder")
    parser.add_argument("out", help="the folder to make")
    parser.add_argument("--to", required=True, choices=EXPORTED, help="the format to write")
    parser.add_argument("--model", help="the model's name there; default: as the data say")
    parser.add_argument("--layer", help="as layer and set are called there, 3-saelight; default: as the data say")


def _collect(given: argparse.Namespace) -> None:
    from saelight.latents.collection import Settings, collect

    settings = Settings(
        data=given.data,
        tokens=given.tokens,
        seed=given.seed,
        tokenizer=given.tokenizer,
        unembedding=given.unembedding,
        fresh=given.fresh,
    )
    for line in collect(given.paths, settings):
        print(line)


def _show(given: argparse.Namespace) -> None:
    from saelight.latents import latent_search, terminal_view
    from saelight.latents.latents_reading import read

    latents = read(given.sae)
    scores, chosen = None, [(i, 0) for i in given.latents]
    if given.search is not None:
        found = latent_search.search(latents, given.search)
        if given.latents:
            found = [match for match in found if match.latent in given.latents]
        chosen, scores = [(match.latent, match.context) for match in found], {match.latent: match.score for match in found}
    elif not given.latents:
        chosen = [(int(i), 0) for i in latent_search.order(latents, given.sort or "density")]
    if given.sort and scores is not None:
        places = {int(i): place for place, i in enumerate(latent_search.order(latents, given.sort))}
        chosen.sort(key=lambda one: places[one[0]])
    if given.ascending:
        fired = latents.column("fired")
        chosen = sorted(reversed(chosen), key=lambda one: not fired[one[0]])
    in_full = bool(given.latents) and given.search is None
    total, chosen = len(chosen), chosen if in_full else chosen[: given.limit]
    if given.json:
        for i, _ in chosen:
            json.dump(latents[i].as_dict(), sys.stdout, ensure_ascii=False)
            print()
    elif in_full:
        print("\n\n".join(terminal_view.card(latents, latents[i], given.limit) for i, _ in chosen))
    elif chosen:
        print(terminal_view.rows(latents, chosen, [scores[i] for i, _ in chosen] if scores is not None else None))
        print(f"{len(chosen)} of {total:,}; saelight latents show {given.sae} {chosen[0][0]} shows all of one")
    else:
        print(f"no latent of {latents.name} fires on {given.search!r} in what was collected")


def _export(given: argparse.Namespace) -> None:
    from saelight.latents import neuronpedia

    print(neuronpedia.export(given.sae, given.out, given.to, given.model, given.layer))
