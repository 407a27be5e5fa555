"""Places in models: what blocks add, by TransformerLens's names, sums up to what they put out, in every family."""

import pytest
import torch

from saelight.data.harvest.hooked import Hooked
from saelight.errors import UserError
from tests.support import tiny_models
from tests.support.tiny_models import HEADS, INNER, WIDTH, WORDS, built, of_images, of_text

MIDDLE = ["gpt2", "gptneo", "opt", "gemma2", "llama", "qwen3"]
SIDE_BY_SIDE = ["gptj", "neox", "bloom", "falcon", "phi"]
IMAGES = ["vit", "clip_vision", "siglip", "dinov2"]


@pytest.fixture(scope="module")
def ids():
    ids_BT = torch.randint(3, WORDS, (2, 7), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}


def rows(model, names, inputs):
    return list(Hooked(model, names)(**inputs).values())


@pytest.mark.parametrize("kind", [*MIDDLE, *SIDE_BY_SIDE, *IMAGES])
def test_what_a_block_adds_sums_up_to_what_it_puts_out(kind, ids):
    images = kind in IMAGES
    model = built(of_images(kind) if images else of_text(kind))
    inputs = {"pixel_values": torch.randn(2, 3, tiny_models.PIXELS, tiny_models.PIXELS)} if images else ids
    names = ["resid_pre", "attn_out", "mlp_out", "resid_post"]
    pre, attention, mlp, post = rows(model, [f"blocks.1.hook_{name}" for name in names], inputs)
    assert torch.allclose(pre + attention + mlp, post, atol=1e-5)
    assert (attention.abs().max() > 1e-6) & (mlp.abs().max() > 1e-6)
    if kind not in SIDE_BY_SIDE:
        (middle,) = rows(model, ["blocks.1.hook_resid_mid"], inputs)
        assert torch.allclose(pre + attention, middle, atol=1e-6)
    else:
        with pytest.raises(UserError, match="hook_resid_mid' is no place of this model that saelight knows"):
            Hooked(model, ["blocks.1.hook_resid_mid"])
    z, neurons = rows(model, ["blocks.1.attn.hook_z", "blocks.1.mlp.hook_post"], inputs)
    assert z.shape == post.shape
    assert neurons.shape[2] in (INNER, 4 * WIDTH)


def test_places_of_a_llama(ids):
    model = built(of_text("llama"))
    with torch.inference_mode():
        states = model(**ids, output_hidden_states=True).hidden_states
    names = ["model.layers.1.input", "layers.0.output", "hook_embed", "layers.1.self_attn.o_proj.input", "norm"]
    given, put_out, embedded, z, last = (rows(model, [name], ids)[0] for name in names)
    assert torch.equal(given, states[1])
    assert torch.equal(put_out, states[1])
    assert torch.equal(embedded, states[0])
    assert torch.equal(last, states[2])
    with torch.inference_mode():
        (attention,) = rows(model, ["blocks.1.hook_attn_out"], ids)
        assert torch.allclose(model.layers[1].self_attn.o_proj(z), attention, atol=1e-6)


@pytest.mark.parametrize(("kind", "block"), [("t5", "block"), ("bart", "layers")])
def test_a_decoder_reads_a_start_token_and_the_text(kind, block, ids):
    model = built(of_text(kind))
    start = torch.full((2, 1), getattr(model.config, "decoder_start_token_id", model.config.pad_token_id))
    with torch.inference_mode():
        out = model(**ids, decoder_input_ids=torch.cat([start, ids["input_ids"]], 1), output_hidden_states=True)
    encoded, decoded = rows(model, [f"encoder.{block}.0", f"decoder.{block}.0"], ids)
    assert torch.equal(encoded, out.encoder_hidden_states[1])
    assert torch.equal(decoded, out.decoder_hidden_states[1][:, 1:])


class Own(torch.nn.Module):
    """A module that knows nothing of transformers: heads are a dimension, the argument has a name of its own."""

    def __init__(self):
        super().__init__()
        self.embed, self.z, self.flat = torch.nn.Embedding(WORDS, WIDTH), torch.nn.Identity(), torch.nn.Identity()

    def forward(self, tokens_BT):
        z_BTHD = self.z(self.embed(tokens_BT).unflatten(2, (HEADS, -1)))
        return self.flat(z_BTHD.flatten(0, 1).flatten(1))


def test_heads_lie_side_by_side_and_flat_rows_are_put_back(ids):
    model = Own()
    wanted = model.embed(ids["input_ids"])
    for place in ("z", "z.input", "flat", "flat.input"):
        hooked = Hooked(model, [place])
        assert torch.equal(hooked(**ids)[place], wanted)
        assert torch.equal(hooked(input_ids=ids["input_ids"][:1])[place], wanted[:1])


@pytest.mark.parametrize(
    ("hooks", "line"),
    [
        (["layers.9"], r"the model has no module 'layers.9'; nearest: layers"),
        (["blocks.9.hook_resid_post"], r"no module 'layers.9', TransformerLens's blocks.9.hook_resid_post; nearest: layers"),
        (
            ["blocks.0.attn.hook_pattern"],
            "hook_pattern' is no place of this model that saelight knows; give",
        ),
        (["layers.1", "model.layers.1"], "hooks names one place twice: layers.1, model.layers.1"),
        (
            ["embed_tokens.input"],
            r"'embed_tokens.input' is given a tensor of shape \(2, 7\) for 2 windows of 7 tokens; hook",
        ),
        (["rotary_emb.inv_freq"], "the model has no module"),
    ],
)
def test_places_that_are_not_there_get_one_line(hooks, line, ids):
    with pytest.raises(UserError, match=line) as caught:
        Hooked(built(of_text("llama")), hooks)(**ids)
    assert "\n" not in str(caught.value)
