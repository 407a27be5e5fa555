"""What makes two points of a sweep the same: all that can change a weight, and nothing of how it is spelt.

Settings count as their classes take them, defaults filled in. Data count by their fingerprint, callbacks and trainer
arguments if they can affect weights. The code of a class does not count: who changes what a callback or a data module of
their own does gives it another setting, or the sweep another folder (docs/sweeps.md).
"""

from typing import Any

from saelight.data.source import Source
from saelight.errors import UserError, did_you_mean
from saelight.run import config_keys
from saelight.sweep.plan.classes import Undescribed, read_callback
from saelight.sweep.plan.length import check_length
from saelight.sweep.plan.sae_checks import CheckedSAE


def check_keys(config: dict[str, Any], where: str) -> None:
    """Raise `UserError` for an argument that the Trainer or the bank does not take."""
    for section, known in (("trainer", config_keys.TRAINER), ("model", config_keys.BANK)):
        for key in config.get(section) or {}:
            if key not in known:
                raise UserError(f"{where}: unknown key '{section}.{key}'{did_you_mean(str(key), known)}")
    check_length(config, where)


def of_run(config: dict[str, Any], data: Source | Undescribed, where: str) -> dict[str, Any]:
    """The part that all SAEs of a run share: its data, its length and precision, and callbacks that act on SAEs.

    Raises:
        UserError: for a callback that is not there, or does not take its settings.
    """
    trainer = config_keys.effective(config.get("trainer") or {})
    identity = {
        "data": data.identity() if isinstance(data, Source) else data._asdict(),
        "max_tokens": (config.get("model") or {}).get("max_tokens"),
        "trainer": {key: value for key, value in trainer.items() if key not in config_keys.WEIGHTLESS},
    }
    given = trainer["callbacks"] or []
    named = [read_callback(one, f"{where}: trainer.callbacks") for one in (given if isinstance(given, list) else [given])]
    if acting := [callback._asdict() for callback in named if callback.affects_weights]:
        # They may act at validations.
        identity |= {"callbacks": acting, "validation": {key: trainer[key] for key in sorted(config_keys.VALIDATION)}}
    return identity


def of_sae(checked: CheckedSAE) -> dict[str, Any]:
    """The part of one SAE, without a seed that it was not given: its width as it comes out."""
    spec = checked.config.spec()
    settings = spec["init_args"]
    if settings["seed"] is None:
        del settings["seed"]
    # Without one it says nothing.
    if (folder := settings.pop("init_from")) is not None:
        from saelight.convert.starts import known  # with every format

        settings["init_from"] = known(folder).fingerprint
    if checked.d_sae:  # as soon as the data's width is known
        settings |= {"expansion": None, "d_sae": checked.d_sae}
    return spec
