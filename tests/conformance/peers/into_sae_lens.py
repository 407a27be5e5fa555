"""Weights copied from saelight's modules into SAELens's.

B batch, D d_in, F d_sae.
"""

from typing import Any

from torch import Tensor, nn

from saelight.saes import SAE, AbsTopK, BatchTopK, Gated, JumpReLU, MatchingPursuit, ReLU, TopK
from tests.conformance.peers.support import parameter_gradients, peer, variant

sae_lens = peer("sae_lens")
_INFERENCE = {
    ReLU: "StandardSAE",
    Gated: "GatedSAE",
    TopK: "TopKSAE",
    AbsTopK: "AbsTopKSAE",
    # It publishes BatchTopK, and Matryoshka over it, as JumpReLU SAEs with one threshold for all latents.
    BatchTopK: "JumpReLUSAE",
    JumpReLU: "JumpReLUSAE",
    MatchingPursuit: "MatchingPursuitSAE",
}
_TRANSCODERS = {ReLU: "", JumpReLU: "JumpReLU", BatchTopK: "JumpReLU"}


def _state(sae: SAE) -> dict[str, Tensor]:
    state = dict(sae.named_parameters())
    if "log_threshold" in state:
        state["threshold"] = state.pop("log_threshold").exp()
    elif hasattr(sae, "threshold"):
        state["threshold"] = sae.threshold.expand(sae.d_sae)
    if "W_skip" in state:
        state["W_skip"] = state["W_skip"].T
    return {name: value.detach().clone() for name, value in state.items()}


def _built(name: str, sae: SAE, state: dict[str, Tensor], **settings: Any) -> nn.Module:
    dtype = str(sae.b_dec.dtype).removeprefix("torch.")
    config = getattr(sae_lens, f"{name}Config")(d_in=sae.d_in, d_sae=sae.d_sae, dtype=dtype, **settings)
    module = getattr(sae_lens, name)(config)
    # Strict: no weight of either side is left over.
    module.load_state_dict(state)
    return module


def inference(sae: SAE, **settings: Any) -> nn.Module:
    """The same SAE or transcoder, as SAELens runs it."""
    kind, state = variant(sae), _state(sae)
    if sae.is_transcoder:
        skip = "Skip" if sae.W_skip is not None else ""
        settings |= {"d_out": sae.d_out, "apply_b_dec_to_input": False}
        return _built(f"{_TRANSCODERS[kind]}{skip}Transcoder", sae, state, **settings)
    if kind in (TopK, AbsTopK):
        settings["k"] = sae.config.k
    return _built(_INFERENCE[kind], sae, state, **settings)


def training(name: str, sae: SAE, **settings: Any) -> nn.Module:
    """The same SAE, as SAELens trains it: `name` is Standard, Gated, TopK, ..."""
    state = _state(sae)
    if "BatchTopK" in name:
        # Its running threshold is no parameter.
        state["topk_threshold"] = state.pop("threshold")[0].double()
    return _built(f"{name}TrainingSAE", sae, state, **settings)


def step(module: nn.Module, x_BD: Tensor, dead_F: Tensor | None = None, **coefficients: float) -> Any:
    """One training forward pass of SAELens, told which latents are dead."""
    inputs = peer("sae_lens.saes.sae").TrainStepInput(
        sae_in=x_BD,
        coefficients=coefficients,
        dead_neuron_mask=dead_F,
        n_training_steps=0,
        is_logging_step=False,
    )
    return module.training_forward_pass(inputs)


def gradients(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """The gradient of each parameter, under saelight's names."""
    found = parameter_gradients(loss, module)
    if "threshold" in found:
        # It trains θ itself, saelight log θ: dL/d(log θ) = θ dL/dθ.
        found["log_threshold"] = found.pop("threshold") * module.threshold.detach()
    return found
