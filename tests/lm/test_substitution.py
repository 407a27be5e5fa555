"""Other activations in a model: what comes out is what a plain hook gives, and no block runs that need not."""

import pytest
import torch
from torch import nn

from saelight.errors import UserError
from saelight.lm.places import find
from saelight.lm.substitution import Substitution
from tests.support.language_model import LAYERS, WORDS

IDS = torch.randint(3, len(WORDS), (3, 10), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
PLACES = {
    # name: (path in the model, whether it is an input, blocks that are passed over)
    "layers.0": ("model.layers.0", False, 1),
    "model.layers.1": ("model.layers.1", False, 2),
    "blocks.0.hook_resid_post": ("model.layers.0", False, 1),
    "blocks.1.hook_resid_pre": ("model.layers.1", True, 1),
    "layers.1.mlp": ("model.layers.1.mlp", False, 1),
    "blocks.1.hook_attn_out": ("model.layers.1.self_attn", False, 1),
    "blocks.1.attn.hook_z": ("model.layers.1.self_attn.o_proj", True, 1),
    "model.layers.1.mlp.output": ("model.layers.1.mlp", False, 1),
    "layers.0.mlp.input": ("model.layers.0.mlp", True, 0),
    "embed_tokens": ("model.embed_tokens", False, 0),
    "norm": ("model.norm", False, 0),
}


@pytest.fixture
def calls(llama):
    """How often each block's MLP runs."""
    counts = [0] * LAYERS

    def count(i):
        counts[i] += 1

    handles = [block.mlp.register_forward_hook(lambda *_, i=i: count(i)) for i, block in enumerate(llama.model.layers)]
    yield counts
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("name", PLACES)
def test_what_is_put_somewhere_counts_as_a_plain_hook_has_it(name, llama):
    path, is_input, passed_over = PLACES[name]
    place = find(llama, [name])
    assert (place.path, place.is_input) == (path, is_input)
    substitution = Substitution(llama, place, place)
    substitution.check(IDS[:1])
    assert len(substitution._before) == passed_over
    seen = substitution.look(IDS, MASK)
    assert torch.equal(substitution.put(seen, seen.y_BTD), llama(input_ids=IDS).logits)
    other = torch.randn(seen.y_BTD.shape, generator=torch.Generator().manual_seed(1))

    def replaced(_module, _args, output):
        return (other, *output[1:]) if isinstance(output, tuple) else other

    module = llama.get_submodule(path)
    handle = (
        module.register_forward_pre_hook(lambda _, args, kwargs: ((other, *args[1:]), kwargs), with_kwargs=True)
        if is_input
        else module.register_forward_hook(replaced)
    )
    expected = llama(input_ids=IDS).logits
    handle.remove()
    assert torch.equal(substitution.put(seen, other), expected)
    assert not torch.allclose(expected, llama(input_ids=IDS).logits)


def test_the_model_runs_only_from_a_block_on(llama, calls):
    place = find(llama, ["layers.0"])
    substitution = Substitution(llama, place, place)
    substitution.check(IDS[:1])
    calls[:] = [0, 0]
    seen = substitution.look(IDS, MASK)
    assert calls == [1, 0]
    for _ in range(3):
        substitution.put(seen, seen.y_BTD)
    assert calls == [1, 3]
    llama(input_ids=IDS)
    assert calls == [2, 4]


def test_two_batches_may_wait(llama):
    place = find(llama, ["layers.0.mlp"])
    substitution = Substitution(llama, place, place)
    substitution.check(IDS[:1])
    batches = [substitution.look(ids[None], MASK[:1]) for ids in IDS]
    for ids, seen in zip(IDS, batches, strict=True):
        assert torch.equal(substitution.put(seen, seen.y_BTD), llama(input_ids=ids[None]).logits)


def test_a_model_that_wants_more_of_its_blocks_than_the_stream_runs_whole(llama, calls):
    kept = []
    blocks = llama.model.layers
    handles = [
        blocks[0].mlp.register_forward_hook(lambda _m, _a, out: kept.append(out)),
        blocks[1].register_forward_hook(lambda _m, _a, out: out + kept.pop()),
    ]
    try:
        place = find(llama, ["layers.0"])
        substitution = Substitution(llama, place, place)
        substitution.check(IDS[:1])
        kept.clear()
        calls[:] = [0, 0]
        seen = substitution.look(IDS, MASK)
        logits = substitution.put(seen, seen.y_BTD)
        assert calls == [2, 1]
        assert torch.equal(logits, llama(input_ids=IDS).logits)
    finally:
        for handle in handles:
            handle.remove()


class _Tuples(nn.Module):
    """A model of one's own: its blocks put out tuples, as older ones of transformers do, and it puts out bare logits."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(8, 8)

        def forward(self, stream, scale):
            return stream + scale * self.inner(stream), scale + 1

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(len(WORDS), 8), nn.Linear(8, 5)
        self.blocks = nn.ModuleList(self.Block() for _ in range(3))

    def forward(self, input_ids, attention_mask):
        stream, scale = self.embed(input_ids), 1.0
        for block in self.blocks:
            # What is beside the stream, the next block needs.
            stream, scale = block(stream, scale)
        return self.head(stream)


@pytest.mark.parametrize(("name", "passed_over"), [("blocks.1", 2), ("blocks.1.inner", 1), ("blocks.2.input", 2)])
def test_blocks_may_put_out_more_than_the_stream(name, passed_over):
    torch.manual_seed(0)
    model = _Tuples().requires_grad_(False)
    place = find(model, [name])
    substitution = Substitution(model, place, place)
    substitution.check(IDS[:1])
    assert len(substitution._before) == passed_over
    seen = substitution.look(IDS, MASK)
    assert torch.equal(substitution.put(seen, seen.y_BTD), model(IDS, MASK))
    whole = Substitution(model, place, place)
    whole._before = []
    other = torch.randn_like(seen.y_BTD)
    assert torch.equal(substitution.put(seen, other), whole.put(whole.look(IDS, MASK), other))


def test_a_model_that_looks_ahead_is_refused(llama):
    place = find(llama, ["layers.0"])
    handle = llama.model.layers[0].mlp.register_forward_hook(lambda _m, _a, out: out + out.mean(1, keepdim=True))
    try:
        with pytest.raises(UserError, match="sees the tokens that it is to predict: give a causal one"):
            Substitution(llama, place, place).check(IDS[:1])
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("model.layer.1", r"the model has no module 'model.layer.1'; nearest: model.layers.1"),
        (
            "blocks.7.hook_resid_post",
            r"the model has no module 'model.layers.7', TransformerLens's blocks.7.",
        ),
        ("", r"the model has no module ''; nearest: "),
        ("rotary_emb", r"'model.rotary_emb' holds no activations \(batch, tokens, width\)"),
        ("layers", r"'model.layers' does not run in a pass of the model on text"),
    ],
)
def test_places_that_are_none(name, line, llama):
    def look():
        place = find(llama, [name])
        Substitution(llama, place, place).check(IDS[:1])

    with pytest.raises(UserError, match=line) as raised:
        look()
    assert "\n" not in str(raised.value)
