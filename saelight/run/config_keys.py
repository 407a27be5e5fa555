"""What a config's `trainer` and `model` sections may say, known without importing Lightning (a test compares it with the
classes themselves): the sweep checks 912 points in less time than that import takes.
"""

from typing import Any

TRAINER: dict[str, Any] = {
    "accelerator": "auto",
    "strategy": "auto",
    "devices": "auto",
    "num_nodes": 1,
    "precision": "32-true",
    "logger": None,
    "callbacks": None,
    "fast_dev_run": False,
    "max_epochs": None,
    "min_epochs": None,
    "max_steps": -1,
    "min_steps": None,
    "max_time": None,
    "limit_train_batches": 1.0,
    "limit_val_batches": 1.0,
    "limit_test_batches": 1.0,
    "limit_predict_batches": 1.0,
    "overfit_batches": 0.0,
    "val_check_interval": 1.0,
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": 2,
    "log_every_n_steps": 50,
    "enable_checkpointing": True,
    "enable_progress_bar": True,
    "enable_model_summary": False,
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
    "gradient_clip_algorithm": None,
    "deterministic": None,
    "benchmark": None,
    "inference_mode": True,
    "use_distributed_sampler": True,
    "profiler": None,
    "detect_anomaly": False,
    "barebones": False,
    "plugins": None,
    "sync_batchnorm": False,
    "reload_dataloaders_every_n_epochs": 0,
    "default_root_dir": None,
    "enable_autolog_hparams": True,
    "model_registry": None,
    "name": None,
    "root": "runs",
    "folder": None,
    "float32_matmul_precision": None,
}
"""The arguments of saelight's Trainer, Lightning's among them, with what each comes to when it is not given."""

BANK: dict[str, Any] = {"saes": None, "d_in": None, "seed": 0, "max_tokens": None, "predict_top": 32, "d_out": None}
"""The arguments of SAEBank, with their defaults."""

VALIDATION = frozenset({"limit_val_batches", "val_check_interval", "check_val_every_n_epoch"})
"""Trainer arguments that decide when and on what it validates: of weight where a callback judges by that."""

_PLACE = {"accelerator", "strategy", "devices", "num_nodes"}  # where a run trains is the launcher's choice
_REPORT = {
    "logger",
    "limit_test_batches",
    "limit_predict_batches",
    "num_sanity_val_steps",
    "log_every_n_steps",
    "enable_checkpointing",
    "enable_progress_bar",
    "enable_model_summary",
    "inference_mode",
    "profiler",
    "detect_anomaly",
    "barebones",
    "default_root_dir",
    "enable_autolog_hparams",
    "model_registry",
    "name",
    "root",
    "folder",
}
WEIGHTLESS = frozenset(VALIDATION | _PLACE | _REPORT | {"callbacks"})
"""Trainer arguments that cannot change a weight by themselves. Callbacks speak for themselves (`affects_weights`)."""

_PRECISIONS = {
    32: "32-true",
    "32": "32-true",
    64: "64-true",
    "64": "64-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
    16: "16-mixed",
}


def effective(trainer: dict[str, Any]) -> dict[str, Any]:
    """Every argument of the Trainer as it comes out: the config's, spelt one way, or the default."""
    given = {key: value for key, value in trainer.items() if value is not None}
    values = TRAINER | given
    return values | {"precision": _PRECISIONS.get(values["precision"], values["precision"])}
