"""SAEBench's evaluations of trained SAEs, through folders that SAELens opens. Both are needed for this alone."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saelight.convert import write
from saelight.errors import UserError, one_line
from saelight.evals.given_saes import Given, gather
from saelight.saes.sae import SAE

_SEED = 42  # SAEBench's own


class _Evaluation(NamedTuple):
    """One of the suite's."""

    module: str
    config: str | None
    """The class of its settings; None of core, which is called otherwise."""
    settings: dict[str, Any]
    needs: str
    """From the hub, beside the model."""


EVALUATIONS = {
    "core": _Evaluation("core", None, {}, "the text Skylion007/openwebtext"),
    "sparse_probing": _Evaluation("sparse_probing", "SparseProbingEvalConfig", {}, "eight data sets of texts with classes"),
    "scr": _Evaluation("scr_and_tpp", "ScrAndTppEvalConfig", {"perform_scr": True}, "bias_in_bios and amazon_reviews"),
    "tpp": _Evaluation("scr_and_tpp", "ScrAndTppEvalConfig", {"perform_scr": False}, "bias_in_bios and amazon_reviews"),
    "absorption": _Evaluation("absorption", "AbsorptionEvalConfig", {}, "nothing, but it knows Gemma only"),
    "ravel": _Evaluation("ravel", "RAVELEvalConfig", {}, "the RAVEL data sets"),
}
"""By name. Its automatic interpretation takes a key of OpenAI's, its unlearning a gated data set: these are left to it."""


def sae_bench(
    saes: Sequence[str | Path | SAE],
    model: str | None = None,
    evaluations: Sequence[str] = ("core",),
    out: str | Path = "sae_bench",
    batch_size: int = 16,
    dtype: str = "float32",
    device: str = "cpu",
) -> list[Path]:
    """Run SAEBench on SAEs; the files of results that it wrote.

    What comes from the Hugging Face hub is said, and asked for, before anything runs.

    Args:
        saes: As of `evaluate`.
        model: TransformerLens's name of the model. Default: the one that the SAEs' activations came from.
        evaluations: Of `EVALUATIONS`.
        out: Folder for the SAEs in SAELens's format and the results; what it holds already is not computed again.
        batch_size: Prompts of a batch.
        dtype: What model and SAEs compute in.
        device: A torch device.

    Raises:
        UserError: SAEBench is not installed, an SAE or its model is not for it, or the hub is out of reach.
    """
    if missing := [name for name in ("sae_bench", "sae_lens") if importlib.util.find_spec(name) is None]:
        raise UserError(f"--suite sae_bench runs SAEBench, and {missing[0]} is not installed: pip install sae-bench")
    for name in evaluations:
        if name not in EVALUATIONS:
            raise UserError(f"no evaluation {name!r} of SAEBench is run; there are {', '.join(EVALUATIONS)}")
    given = gather(list(saes))
    models = {one.name: _model_of(one, model) for one in given}
    for name in dict.fromkeys(models.values()):
        needs = "; ".join(f"{each} takes {EVALUATIONS[each].needs}" for each in evaluations)
        print(f"SAEBench reads the model {name} from the Hugging Face hub; {needs}", flush=True)
    for name in dict.fromkeys(models.values()):
        _ask_for(name)
    written: list[Path] = []
    for one in given:
        lens = _in_sae_lens(one, models[one.name], Path(out) / "saes", dtype, device)
        for each in evaluations:
            results = Path(out) / each
            _run(EVALUATIONS[each], lens, one.name, models[one.name], results, batch_size, dtype, device)
            if not (made := sorted(results.rglob(f"*{_file_name(one)}*.json"))):
                raise UserError(f"SAEBench's {each} came to nothing for SAE {one.name!r}: what it says above is why")
            written += made
    return written


def _model_of(one: Given, model: str | None) -> str:
    """TransformerLens's official name of an SAE's model. Raises `UserError` for one that it cannot load."""
    name = model or one.source.get("model")
    if one.sae.is_transcoder:
        raise UserError(f"SAE {one.name!r} is a transcoder, and SAEBench evaluates autoencoders: leave it out")
    if not isinstance(name, str) or not name:
        raise UserError(f"SAE {one.name!r} does not know its language model: give --model, as TransformerLens names it")
    supported = importlib.import_module("transformer_lens.loading_from_pretrained")
    try:
        return supported.get_official_model_name(name)
    except ValueError:
        raise UserError(f"SAEBench loads models by TransformerLens, which knows no {name!r}: give --model") from None


def _ask_for(model: str) -> None:
    """Raise `UserError` at once where the hub does not give the model; SAEBench would ask again and again, for minutes."""
    import huggingface_hub

    try:
        if not isinstance(huggingface_hub.try_to_load_from_cache(model, "config.json"), str):
            huggingface_hub.model_info(model, timeout=10)
    except Exception as error:  # the hub's and the network's own are of many kinds
        raise UserError(
            f"the hub does not give {model} ({one_line(error)}): connect to it, or fetch the model before"
        ) from error


def _in_sae_lens(one: Given, model: str, folder: Path, dtype: str, device: str) -> Any:
    """The SAE as SAELens has it. Raises `UserError` where it has no such SAE."""
    path = folder / _file_name(one)
    if not path.exists():
        write(one.sae, path, to="sae_lens")
    # Variants that SAELens does not know open there where saelight is.
    importlib.import_module("saelight.convert.in_sae_lens")
    lens = importlib.import_module("sae_lens").SAE.load_from_disk(path, device=device)
    if not lens.cfg.metadata.hook_name:
        raise UserError(f"SAE {one.name!r} has a hook that TransformerLens has no name for: SAEBench cannot place it")
    lens.cfg.metadata.model_name = model
    lens.cfg.dtype = dtype
    utilities = importlib.import_module("sae_bench.sae_bench_utils.general_utils")
    return lens.to(dtype=utilities.str_to_dtype(dtype))


def _run(
    evaluation: _Evaluation, lens: Any, name: str, model: str, out: Path, batch_size: int, dtype: str, device: str
) -> None:
    main = importlib.import_module(f"sae_bench.evals.{evaluation.module}.main")
    out.mkdir(parents=True, exist_ok=True)
    selected = [(name.replace("/", "-"), lens)]
    if evaluation.config is None:
        # As its authors run it: 0.4 million tokens for the losses, 4 million for the rest.
        main.multiple_evals(
            selected_saes=selected,
            n_eval_reconstruction_batches=200,
            n_eval_sparsity_variance_batches=2000,
            eval_batch_size_prompts=batch_size,
            compute_featurewise_density_statistics=True,
            compute_featurewise_weight_based_metrics=True,
            exclude_special_tokens_from_reconstruction=True,
            output_folder=str(out),
            verbose=True,
            dtype=dtype,
            device=device,
        )
        return
    config = getattr(main, evaluation.config)(
        model_name=model, random_seed=_SEED, llm_batch_size=batch_size, llm_dtype=dtype, **evaluation.settings
    )
    main.run_eval(config, selected, device, str(out), False)


def _file_name(one: Given) -> str:
    return one.name.replace("/", "-")
