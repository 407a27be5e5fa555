"""Which float32 products a run has: on CUDA in TF32 unless somebody said otherwise, and as before once it is over."""

import lightning as L
import pytest
import torch

import saelight
from saelight.errors import UserError
from saelight.run.float32_products import float32_products
from tests.support.runs import data, trainer

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
MATMULS = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul


def of_torch() -> tuple[str, ...]:
    return tuple(matmul.fp32_precision for matmul in MATMULS)


@pytest.fixture(autouse=True)
def untold():
    """torch as it comes, before and after: the other tests' products are full float32."""
    assert of_torch() == ("none", "none")
    yield
    torch.set_float32_matmul_precision("highest")
    for matmul in MATMULS:
        matmul.fp32_precision = "none"


def one_backend(precision: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = precision


TELL = {
    "nothing": lambda: None,
    "highest": lambda: torch.set_float32_matmul_precision("highest"),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "ieee": lambda: one_backend("ieee"),
    "tf32": lambda: one_backend("tf32"),
}
CASES = [
    # what torch was told, the setting, device, precision: what CUDA multiplies in
    ("nothing", None, CUDA, "32-true", "tf32"),
    ("nothing", None, CUDA, "bf16-mixed", "none"),
    ("nothing", None, CUDA, "64-true", "none"),
    ("nothing", None, CPU, "32-true", "none"),
    ("nothing", "highest", CUDA, "32-true", "ieee"),
    ("nothing", "high", CUDA, "bf16-mixed", "tf32"),
    ("nothing", "medium", CUDA, "32-true", "tf32"),
    ("highest", None, CUDA, "32-true", "ieee"),
    ("highest", "high", CUDA, "32-true", "tf32"),
    ("high", None, CUDA, "32-true", "tf32"),
    ("high", "highest", CUDA, "32-true", "ieee"),
    ("medium", None, CUDA, "32-true", "tf32"),
    ("ieee", None, CUDA, "32-true", "ieee"),
    ("tf32", None, CUDA, "32-true", "tf32"),
    ("tf32", "highest", CUDA, "32-true", "ieee"),
]


@pytest.mark.parametrize(("told", "setting", "device", "precision", "wanted"), CASES)
def test_what_cuda_multiplies_in(told, setting, device, precision, wanted):
    TELL[told]()
    before = of_torch()
    with float32_products(setting, device, precision):
        assert torch.backends.cuda.matmul.fp32_precision == wanted
        torch.get_float32_matmul_precision()  # as Lightning does, which raises where torch was told by halves
    assert of_torch() == before


def test_all_backends_at_once_are_told_too():
    torch.backends.fp32_precision = "tf32"
    try:
        with float32_products(None, CUDA, "32-true"):
            assert torch.backends.cuda.matmul.fp32_precision == "tf32"
            assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.fp32_precision = "none"


def test_a_run_that_fails_leaves_nothing_either():
    with pytest.raises(ZeroDivisionError), float32_products("high", CPU, "32-true"):
        _ = 1 / 0
    assert of_torch() == ("none", "none")


class Look(L.Callback):
    seen: str

    def on_train_batch_end(self, *_):
        self.seen = torch.get_float32_matmul_precision()


@pytest.mark.parametrize("setting", [None, "high"])
def test_a_run_has_what_its_trainer_says_and_leaves_nothing(setting, tmp_path):
    look = Look()
    t, d = trainer(tmp_path, root=None, max_steps=1, callbacks=[look], float32_matmul_precision=setting), data(rows=200)
    t.fit(saelight.SAEBank({"topk": saelight.TopK(d_sae=32, k=4)}, d_in=d.d_in), d)
    assert look.seen == (setting or "highest")
    assert of_torch() == ("none", "none")


def test_another_word_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^trainer\.float32_matmul_precision must be highest or high or medium .* 'tf32'$"):
        trainer(tmp_path, float32_matmul_precision="tf32")
