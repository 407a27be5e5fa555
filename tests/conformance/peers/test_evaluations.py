"""What SAELens and SAEBench measure of an SAE in its model, on a transformer with random weights and a data set of our own.

No model and no text comes from the hub: both take a model and a store of tokens as they are.
"""

import pytest
import torch

from saelight.convert import write
from saelight.lm.judging import Candidate, Judge
from saelight.lm.places import find
from saelight.lm.substitution import Substitution
from saelight.metrics import Density
from saelight.saes import AbsTopK, Gated, JumpReLU, ReLU, TopK
from saelight.saes.provenance import Provenance
from tests.conformance.peers.support import peer

pytestmark = pytest.mark.filterwarnings("ignore")
D, LAYERS, VOCABULARY, CONTEXT, BATCH, BATCHES = 16, 3, 40, 24, 8, 3
SPECIAL = (0, 1)
HOOK = "blocks.1.hook_resid_post"
SAES = {
    "relu": ReLU(d_sae=48),
    "gated": Gated(d_sae=48),
    "jump_relu": JumpReLU(d_sae=48),
    "topk": TopK(d_sae=48, k=5, decoder="unit"),
    "abs_topk": AbsTopK(d_sae=48, k=5, decoder="unit"),
}


@pytest.fixture(scope="module")
def models():
    """GPT-2 of transformers, weights far from their start, and the same as TransformerLens has it."""
    transformers, hooked = peer("transformers"), peer("transformer_lens")
    conversions = peer("transformer_lens.pretrained.weight_conversions")
    torch.manual_seed(0)
    settings = {"n_embd": D, "n_head": 2, "n_layer": LAYERS, "vocab_size": VOCABULARY, "n_positions": CONTEXT}
    ours = transformers.GPT2LMHeadModel(transformers.GPT2Config(**settings, attn_implementation="eager")).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    ours.config.use_cache = False
    config = hooked.HookedTransformerConfig(
        n_layers=LAYERS,
        d_model=D,
        n_ctx=CONTEXT,
        d_head=D // 2,
        n_heads=2,
        d_vocab=VOCABULARY,
        d_mlp=4 * D,
        act_fn="gelu_new",
        eps=ours.config.layer_norm_epsilon,
        device="cpu",
    )
    theirs = hooked.HookedTransformer(config)
    theirs.load_and_process_state_dict(
        conversions.convert_gpt2_weights(ours, config), fold_ln=False, center_writing_weights=False, center_unembed=False
    )
    return ours, theirs.eval(), written_by(ours)


@torch.no_grad()
def written_by(model):
    """Text that the model itself writes, so that it has something to lose: BOS first, some other special tokens inside."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.full((BATCH * BATCHES, 1), SPECIAL[0])
    for _ in range(CONTEXT - 1):
        p = model(input_ids=tokens).logits[:, -1].softmax(-1)
        tokens = torch.cat([tokens, torch.multinomial(p, 1, generator=generator)], 1)
    tokens[::3, 7] = SPECIAL[1]
    return tokens


def store_of(models):
    """A store that gives the same tokens every time."""
    datasets, stores = peer("datasets"), peer("sae_lens.training.activations_store")
    _, theirs, tokens = models
    return stores.ActivationsStore(
        model=theirs,
        dataset=datasets.Dataset.from_dict({"tokens": tokens.tolist()}),
        streaming=False,
        hook_name=HOOK,
        hook_head_index=None,
        context_size=CONTEXT,
        d_in=D,
        n_batches_in_buffer=2,
        total_training_tokens=10_000,
        store_batch_size_prompts=BATCH,
        train_batch_size_tokens=64,
        prepend_bos=False,
        normalize_activations="none",
        device=torch.device("cpu"),
        dtype="float32",
    )


@torch.no_grad()
def trained(config):
    sae = config.build(D, seed=1)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sae.named_parameters():
        if name == "log_threshold":
            parameter.copy_((0.1 + 0.4 * torch.rand(parameter.shape, generator=generator)).log())
        else:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    sae.constrain_weights()
    source = {"model": "gpt2", "hook": "transformer.h.1", "context": CONTEXT}
    sae.provenance = Provenance(name="a", source=source)
    return sae.eval().requires_grad_(False)


def both(name, models, folder, special=SPECIAL):
    """Our judgement, and SAELens's SAE of the same weights beside a store of the same tokens."""
    ours, _, tokens = models
    sae = trained(SAES[name])
    write(sae, folder / "lens", to="sae_lens")
    lens = peer("sae_lens").SAE.load_from_disk(folder / "lens")
    place = find(ours, [HOOK])
    assert place.path == "transformer.h.1"
    substitution = Substitution(ours, place, place)
    batches = tokens.split(BATCH)
    substitution.check(batches[0][:1])
    judge = Judge(substitution, [Candidate("a", sae)], special, CONTEXT)
    for ids in batches:
        judge.add(ids, torch.ones_like(ids, dtype=torch.bool))
    (found,) = judge.finish()
    density = Density(sae.d_sae)
    for ids in batches:
        x = substitution.look(ids, torch.ones_like(ids)).x_BTD
        density.update(sae.encode(x[~torch.isin(ids, torch.tensor(special, dtype=torch.int64))]))
    return found.metrics, density.compute(), lens


LOSSES = {
    "ce_clean": ("model_performance_preservation", "ce_loss_without_sae"),
    "ce_sae": ("model_performance_preservation", "ce_loss_with_sae"),
    "ce_zero": ("model_performance_preservation", "ce_loss_with_ablation"),
    "loss_recovered": ("model_performance_preservation", "ce_loss_score"),
    "kl_sae": ("model_behavior_preservation", "kl_div_with_sae"),
    "kl_zero": ("model_behavior_preservation", "kl_div_with_ablation"),
    "kl_recovered": ("model_behavior_preservation", "kl_div_score"),
}
ROWS = {
    "l0": ("sparsity", "l0"),
    "l2_ratio": ("shrinkage", "l2_ratio"),
    "cosine": ("reconstruction_quality", "cossim"),
}


def values(metrics, names):
    return {ours: metrics[group][theirs] for ours, (group, theirs) in names.items()}


def same(found, theirs, names):
    assert {key: found[key] for key in names} == pytest.approx(values(theirs, names), abs=1e-5, rel=1e-5)


@pytest.mark.parametrize("special", [SPECIAL, ()], ids=["special tokens as they are", "spliced everywhere"])
@pytest.mark.parametrize("name", SAES)
def test_sae_lens(name, special, models, tmp_path):
    evals, scaler = peer("sae_lens.evals"), peer("sae_lens.training.activation_scaler")
    found, density_F, lens = both(name, models, tmp_path, special)
    config = evals.get_eval_everything_config(BATCH, BATCHES, BATCHES)
    metrics, of_latents = evals.run_evals(
        lens, store_of(models), models[1], scaler.ActivationScaler(), config, exclude_special_tokens=list(special) or False
    )
    assert found["ce_zero"] - found["ce_clean"] > 0.3  # there is something to lose
    explained = {"explained_variance": ("reconstruction_quality", "explained_variance")}
    same(found, metrics, LOSSES | ROWS | explained)
    assert of_latents["feature_density"] == pytest.approx(density_F.tolist(), abs=1e-6)


@pytest.mark.parametrize("name", SAES)
def test_sae_bench(name, models, tmp_path):
    core, config = peer("sae_bench.evals.core.main"), peer("sae_bench.evals.core.eval_config")
    found, density_F, lens = both(name, models, tmp_path)
    # As its own loader hands on an SAE of SAELens.
    lens.cfg.hook_layer = 1
    for key in ("hook_name", "hook_head_index"):
        setattr(lens.cfg, key, getattr(lens.cfg.metadata, key))
    asked = [field for field in vars(config.CoreEvalConfig()) if field.startswith("compute_")]
    metrics, of_latents = core.run_evals(
        lens,
        store_of(models),
        models[1],
        config.CoreEvalConfig(
            batch_size_prompts=BATCH,
            n_eval_reconstruction_batches=BATCHES,
            n_eval_sparsity_variance_batches=BATCHES,
            exclude_special_tokens_from_reconstruction=True,
            **{name: True for name in asked if name != "compute_featurewise_weight_based_metrics"},
        ),
        ignore_tokens=set(SPECIAL),
    )
    same(found, metrics, LOSSES | ROWS)
    quality = metrics["reconstruction_quality"]
    # Two of its metrics are not what they are called. Its explained variance takes (mean_d E[x_d²])² for ‖E x‖².
    x = _rows(models)
    fvu = 1 - found["explained_variance"]
    error = fvu * float((x - x.mean(0)).square().sum(1).mean())
    total = float(x.square().sum(1).mean() - x.square().mean(0).mean() ** 2)
    assert quality["explained_variance"] != pytest.approx(found["explained_variance"], rel=1e-3)
    assert quality["explained_variance"] == pytest.approx(1 - error / total, rel=0.02)
    # Its mean squared error is divided by the tokens of a batch once more.
    assert quality["mse"] == pytest.approx(error / len(x) * BATCHES, rel=0.02)
    # It counts latents above 0: one of AbsTopK's below is none.
    if name == "abs_topk":
        assert sum(of_latents["feature_density"]) < 0.9 * float(density_F.sum())
    else:
        assert of_latents["feature_density"] == pytest.approx(density_F.tolist(), abs=1e-6)


def _rows(models):
    """The activations of all tokens that are no special ones."""
    ours, _, tokens = models
    place = find(ours, [HOOK])
    return (
        Substitution(ours, place, place)
        .look(tokens, torch.ones_like(tokens))
        .x_BTD[~torch.isin(tokens, torch.tensor(SPECIAL))]
    )
