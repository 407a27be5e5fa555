"""`saelight.evaluate`: what a language model loses when SAEs stand in for its activations. Light, as the command line asks
it for its settings: what runs is `evaluation_pass.py`."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from saelight.errors import UserError
from saelight.ranges import LONGEST, SEED, Range, check_arguments


def evaluate(
    saes: Any,
    model: str | None = None,
    text: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    column: str | None = None,
    split: str = "train",
    subset: str | None = None,
    hook: str | None = None,
    target_hook: str | None = None,
    context: Annotated[int | None, Range(least=2, most=2**20)] = None,
    max_tokens: Annotated[int, Range(least=1, most=LONGEST)] = 20_480,
    batch_size: Annotated[int, Range(least=1, most=2**16)] = 8,
    splice_special: bool = False,
    per_position: bool = False,
    tokenizer: str | None = None,
    revision: str | None = None,
    model_dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    attention: str | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    seed: Annotated[int, SEED] = 0,
) -> list[dict[str, Any]]:
    """Judge SAEs on their language model: all of one hook in one pass over the text.

    Each gets a file `evaluation.json` in its folder, and a sweep's results are brought up to date. What it holds is
    returned, a dict for each SAE: `metrics` are defined in docs/evaluate.md.

    Args:
        saes: Folders of trained SAEs of any known format, of runs or of sweeps, all of whose SAEs are evaluated; or SAEs
            themselves; one or several.
        model: A causal language model, as harvests take it: a name on the hub, a folder, a .gguf file. Default: the one that
            the SAEs' activations came from.
        text: What the model reads, as harvests take it: glob patterns of files, folders, hf:// data sets; `{stdlib}` is the
            folder of Python's standard library.
        exclude: Patterns of files to leave out, matched against the whole path.
        column: Column of JSON lines, Parquet and data sets that holds texts or lists of token ids.
        split: Split of data sets.
        subset: Configuration of hf:// data sets.
        hook: The module that the SAEs belong to, dotted or TransformerLens's. Default: as they say themselves.
        target_hook: Of transcoders: the module whose output theirs replaces.
        context: Tokens of a window. Default: as the SAEs' harvest had it, or 128.
        max_tokens: Tokens to read; the window in which they are reached counts whole.
        batch_size: Windows of a batch. It takes memory for a batch's logits three times.
        splice_special: Let the SAE stand in at BOS, EOS, PAD and SEP tokens too, and count them. false: there the model's
            own activations stay, and no mean counts them, as in SAELens and SAEBench.
        per_position: Keep losses, L0 and FVU by position in the window too.
        tokenizer: Name or folder of the tokenizer, where it is not with the model.
        revision: Branch, tag or commit of a model on the hub.
        model_dtype: What the model computes in.
        attention: Attention implementation of transformers. Default: transformers' own choice.
        device: auto (the first GPU, or else the CPU), or a torch device.
        trust_remote_code: Run Python code that comes with the model.
        seed: Seed of the order of files.

    Raises:
        UserError: for what cannot be read, is not known, or does not fit together.
    """
    settings = {"context": context, "max_tokens": max_tokens, "batch_size": batch_size, "seed": seed}
    check_arguments(evaluate, settings)
    if not text:
        raise UserError("evaluate needs text: give --text, patterns of files, as 'texts/**/*.txt'")
    from saelight.data.harvest.model_settings import ModelSettings
    from saelight.data.harvest.text_settings import TextSettings
    from saelight.evals import evaluation_pass
    from saelight.evals.given_saes import Where

    files = [text] if isinstance(text, str) else list(text)
    excluded = None if exclude is None else list(exclude)
    reads = TextSettings(files, exclude=excluded, column=column, split=split, subset=subset, seed=seed)
    runs = ModelSettings(
        model or "",
        tokenizer=tokenizer,
        revision=revision,
        model_dtype=model_dtype,
        attention=attention,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    where = Where(model, hook, target_hook, context)
    how = evaluation_pass.How(max_tokens, batch_size, splice_special, per_position)
    return evaluation_pass.run(saes, where, reads, runs, how)
