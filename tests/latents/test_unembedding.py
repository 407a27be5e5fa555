"""The logits that latents promote are those that the model's own last layers make of their directions."""

import pytest
import torch

from saelight.latents.unembedding import effects, folded, unembedding

pytestmark = pytest.mark.slow  # transformers' own modules take seconds to import
V, D = 40, 8


def llama(transformers):
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=V,
            hidden_size=D,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
        )
    )


def gpt2(transformers):
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=V, n_embd=D, n_layer=1, n_head=2, n_positions=16))


def gemma(transformers):
    return transformers.GemmaForCausalLM(
        transformers.GemmaConfig(
            vocab_size=V,
            hidden_size=D,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=4,
        )
    )


@pytest.mark.parametrize("make", [llama, gpt2, gemma])
def test_logits_are_those_of_the_norm_and_the_head(make):
    """Of a row x of the residual stream and of x + ε d, d orthogonal to x, the logits differ by ε times the effects of d,
    the norm's division left out."""
    torch.manual_seed(0)
    network = make(pytest.importorskip("transformers")).eval()
    norm = [child for child in network.base_model.children() if "Norm" in type(child).__name__][-1]
    with torch.no_grad():
        norm.weight.copy_(torch.rand(D) + 0.5)
    W_dec = torch.randn(5, D)
    x = torch.randn(D)
    centred = isinstance(norm, torch.nn.LayerNorm)
    x = x - x.mean() if centred else x
    seen = W_dec - W_dec.mean(1, keepdim=True) if centred else W_dec
    # Only the part that is orthogonal to x leaves the division as it is.
    across = seen - (seen @ x)[:, None] * x / x.square().sum()
    with torch.no_grad():
        head, size = network.get_output_embeddings(), x.square().mean().sqrt()
        change = (head(norm(x + 1e-3 * across)) - head(norm(x))) / 1e-3 * size
    promoted, suppressed = effects(across, folded(network), 6)
    best = change.topk(6)
    assert promoted.ids_FT.tolist() == best.indices.tolist()
    torch.testing.assert_close(torch.from_numpy(promoted.logits_FT), best.values, rtol=0.02, atol=2e-3)
    assert suppressed.ids_FT.tolist() == (-change).topk(6).indices.tolist()


def test_a_model_is_read_from_its_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    network = llama(transformers)
    network.save_pretrained(tmp_path / "llama")
    found = unembedding(str(tmp_path / "llama"))
    assert torch.equal(found.W_VD, folded(network.eval()).W_VD)


def test_what_predicts_no_next_token_has_none(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=V,
        hidden_size=D,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        architectures=["BertModel"],
    )
    config.save_pretrained(tmp_path / "bert")
    assert unembedding(str(tmp_path / "bert")) == "BertModel predicts no next token"
    assert isinstance(unembedding("nobody/has-this-model"), str)
