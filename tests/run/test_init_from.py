"""Trainings that start from trained SAEs: in the same units or others, with other settings, and what is refused."""

import contextlib
import shutil
from dataclasses import replace

import pytest
import torch

import saelight
from saelight.convert import starts, write
from saelight.saes import BatchTopK, HardConcrete, JumpReLU, Matryoshka, ReLU, TopK
from tests.support.conversions import CONFIGS, D, F, K, trained
from tests.support.hub_server import standing_in
from tests.support.runs import data, trainer

SAES = {
    "batch": BatchTopK(d_sae=40, k=4, lr=1e-3),
    "top": TopK(d_sae=40, k=4, lr=1e-3),
    "jump": JumpReLU(d_sae=40, lr=1e-3),
    "hard": HardConcrete(d_sae=40, lr=1e-3),
}
STILL = 1e-9
"""A learning rate that moves nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The exports of a short run."""
    t, d = trainer(tmp_path_factory.mktemp("first"), max_steps=15), data()
    t.fit(saelight.SAEBank(SAES, d_in=16), d)
    return t.folder / "saes"


def started(tmp_path, d, saes, **settings):
    """A bank after one step from its start, and its run's folder."""
    t, bank = trainer(tmp_path, **{"max_steps": 1} | settings), saelight.SAEBank(saes, d_in=16)
    t.fit(bank, d)
    return bank, t.folder


@pytest.mark.parametrize("other", [{}, {"magnitude_mean": 4.0}, {"normalise": "rms"}])
def test_what_was_trained_goes_on_in_any_units(other, folder, tmp_path):
    d = data(**other)
    saes = {n: replace(SAES[n], lr=STILL, init_from=str(folder / n)) for n in ("top", "jump", "hard")}
    saes["jump"].threshold_lr = STILL
    bank, run = started(tmp_path, d, saes)
    raw = torch.empty(200, 16)
    d.opened.rows.read(0, raw)
    for name in saes:
        before, after = saelight.load(folder / name), saelight.load(run / "saes" / name)
        torch.testing.assert_close(after(raw), before(raw), rtol=1e-4, atol=1e-5)
        assert int(bank[name].tokens_since_fired.max()) <= 100


def test_many_start_from_one_with_settings_of_their_own(folder, tmp_path):
    source = str(folder / "batch")
    saes = {f"k{k}": BatchTopK(d_sae=40, k=k, lr=STILL, init_from=source) for k in (2, 8)}
    saes["nested"] = Matryoshka(d_sae=40, lr=STILL, base=BatchTopK(k=4), init_from=source)
    bank, _ = started(tmp_path, data(), saes, max_steps=3)
    for sae in bank.saes:
        torch.testing.assert_close(sae.W_dec, saelight.load(source, fold_normalisation=False).W_dec, rtol=0, atol=1e-5)
    assert bank.last_metrics["k2"]["l0"] < bank.last_metrics["k8"]["l0"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TopK(d_sae=40, init_from="batch"), "of another variant, BatchTopK, not TopK"),
        (BatchTopK(expansion=2, init_from="batch"), "has d_sae 40, this SAE 32: set d_sae 40"),
        (
            HardConcrete(d_sae=40, input_dependent=False, init_from="hard"),
            r"other tensors than this SAE \(b_enc, log_alpha\)",
        ),
        (BatchTopK(d_sae=40, init_from="nowhere"), "nowhere holds no trained SAE: there is no such file or folder"),
        (BatchTopK(d_sae=40, init_from="batch", encoder_scale=2.0), "encoder_scale is for weights that start anew"),
    ],
)
def test_what_cannot_be_the_start_is_refused_before_anything_is_written(config, message, folder, tmp_path):
    config.init_from = str(folder / config.init_from)
    with pytest.raises(saelight.UserError, match=f"SAE 'a': .*{message}"):
        started(tmp_path, data(), {"a": config})
    assert not list(tmp_path.iterdir())


def test_data_of_another_width_are_refused(folder, tmp_path):
    bank = saelight.SAEBank({"a": BatchTopK(d_sae=40, init_from=str(folder / "batch"))}, d_in=8)
    with pytest.raises(saelight.UserError, match="was trained on data of d_in 16, these have 8"):
        trainer(tmp_path).fit(bank, data(d_in=8))


def test_a_run_goes_on_when_what_it_started_from_is_gone(folder, tmp_path):
    source = shutil.copytree(folder / "jump", tmp_path / "jump")
    saes = {"a": JumpReLU(d_sae=40, lr=1e-3, init_from=str(source))}
    before, _ = started(tmp_path, data(), saes)
    shutil.rmtree(source)
    bank = saelight.SAEBank(saes, d_in=16)
    with pytest.warns(UserWarning, match="begun for 1 optimizer steps"):
        trainer(tmp_path, max_steps=2).fit(bank, data(), ckpt_path="last")
    torch.testing.assert_close(bank["a"].W_dec, before["a"].W_dec, rtol=0, atol=0.01)
    with pytest.raises(saelight.UserError, match=r"is no checkpoint to resume, .*init_from"):
        trainer(tmp_path).fit(bank, data(), ckpt_path=str(folder / "jump"))


@pytest.mark.parametrize("to", ["sae_lens", "hub"])
def test_another_librarys_sae_is_the_start_to_the_bit(to, tmp_path):
    """Of data that are as the model gives them, before the first step, every variant that both have."""
    saes = {"relu": ReLU(d_sae=F), "jump_relu": JumpReLU(d_sae=F, penalty="tanh"), "topk_unit": TopK(d_sae=F, k=K)}
    with contextlib.ExitStack() as stack:
        for name, config in saes.items():
            path = tmp_path / to / name
            write(trained(CONFIGS[name]), path, to="sae_lens" if to == "hub" else to)
            (path / "saelight.json").unlink()
            config.init_from = str(path)
        if to == "hub":
            hub = stack.enter_context(standing_in(tmp_path / "cache"))
            hub.publish("u/saes", tmp_path / to)
            for name, config in saes.items():
                config.init_from = f"hf://u/saes/{name}"
        began = Began()
        t, bank = trainer(tmp_path, max_steps=1, callbacks=[began]), saelight.SAEBank(saes, d_in=D)
        t.fit(bank, data(normalise="none"))
    for name in saes:
        theirs = saelight.load(tmp_path / to / name).state_dict()
        # Rows whose norms are 1 but for rounding are brought to it for TopK.
        rounding = 1e-6 if name == "topk_unit" else 0
        for key in ("W_enc", "W_dec", "b_enc", "b_dec"):
            torch.testing.assert_close(began.weights[name][key], theirs[key], rtol=0, atol=rounding)


class Began(saelight.SAECallback):
    """Keeps the weights that training begins with."""

    weights: dict[str, dict[str, torch.Tensor]]

    def on_train_start(self, trainer, bank):
        state = {name: sae.state_dict() for name, sae in zip(bank.names, bank.saes, strict=True)}
        self.weights = {name: {key: tensor.clone() for key, tensor in of.items()} for name, of in state.items()}


def test_published_transcoders_start_transcoders(tmp_path):
    write(trained(CONFIGS["relu"], d_out=D, layer=0), tmp_path / "set", to="circuit_tracer")
    start = str(tmp_path / "set" / "layer_0.safetensors")
    assert starts.read(start).target_normalisation is not None
    with pytest.raises(saelight.UserError, match="was trained on data of d_out 16, these have None"):
        started(tmp_path, data(), {"a": ReLU(d_sae=F, init_from=start)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: write(trained(CONFIGS["gated"]), path, to="sae_lens"), "is of another variant, Gated, not TopK"),
        (lambda path: write(trained(CONFIGS["topk"], layer=1), path, to="sae_lens"), None),
        (lambda path: norms_of_their_own(path), "selects latents without the norms of its decoder's rows, which differ"),
        (lambda path: path.mkdir(), "holds no trained SAE of a known format"),
    ],
)
def test_another_librarys_sae_that_cannot_be_the_start(make, message, tmp_path):
    make(tmp_path / "theirs")
    saes = {"a": TopK(d_sae=F, k=K, lr=STILL, init_from=str(tmp_path / "theirs"))}
    if message is None:
        started(tmp_path, data(), saes)
        return
    with pytest.raises(saelight.UserError, match=f"SAE 'a': .*{message}"):
        started(tmp_path, data(), saes)
    assert not (tmp_path / "runs").exists()


def norms_of_their_own(path) -> None:
    """A TopK SAE whose rows have norms that its library does not select by."""
    sae = trained(CONFIGS["topk_unit"])
    sae.W_dec[0] *= 2
    write(sae, path, to="sae_lens")
    (path / "saelight.json").unlink()


def test_a_sweep_knows_a_foreign_start_by_its_weights(tmp_path):
    for name in ("a", "b", "other"):
        write(trained(CONFIGS["topk_unit" if name == "other" else "topk"]), tmp_path / name, to="sparsify")
    known = {name: starts.known(str(tmp_path / name)).fingerprint for name in ("a", "b", "other")}
    assert known["a"] == known["b"] != known["other"]
    (tmp_path / "a" / "sae.safetensors").write_bytes((tmp_path / "other" / "sae.safetensors").read_bytes())
    (tmp_path / "a" / "saelight.json").unlink()
    assert starts.known(str(tmp_path / "a")).fingerprint == known["other"]
