"""Importing this module makes SAELens know saelight's own architectures: `SAE.load_from_disk` then opens what
`saelight convert --to sae_lens` writes of the variants that SAELens has none for. Needs SAELens.

The folder is as every other of SAELens's; its architecture is `saelight`, its config has the variant with all its fields,
and saelight computes. Shapes: D d_in (d_out where it concerns the target), F d_sae.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from sae_lens import SAE, SAEConfig, register_sae_class
from torch import Tensor, nn
from torch.func import functional_call

from saelight.convert.sae_lens import ARCHITECTURE
from saelight.saes import SAE as SaelightSAE
from saelight.saes.plain_data import from_spec
from saelight.saes.sae_folder import published


@dataclass
class SaelightInSAELensConfig(SAEConfig):
    """SAELens's fields, and what saelight builds the SAE from."""

    d_out: int | None = None
    """Of a transcoder."""
    spec: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def architecture(cls) -> str:
        return ARCHITECTURE


class _Method(nn.Module):
    """A method of an SAE, as a module whose tensors can be exchanged."""

    def __init__(self, sae: SaelightSAE, name: str) -> None:
        super().__init__()
        self.sae, self.name = sae, name

    def forward(self, *args: Tensor) -> Tensor:
        return getattr(self.sae, self.name)(*args)


class SaelightInSAELens(SAE[SaelightInSAELensConfig]):
    """An SAE of saelight's whose weights are SAELens's to load, move and save."""

    def initialize_weights(self) -> None:
        with torch.device("meta"):
            sae = from_spec(self.cfg.spec).build(self.cfg.d_in, 0, self.cfg.d_out)
        # In a tuple: its tensors, which have no memory, are none of this module's.
        self._computes = (sae.eval(),)
        for name, tensor in published(sae).items():
            weight = torch.zeros(tensor.shape, dtype=self.dtype, device=self.device)
            self.register_parameter(name, nn.Parameter(weight))

    def _call(self, method: str, *args: Tensor) -> Tensor:
        (sae,) = self._computes
        tensors = {f"sae.{name}": getattr(self, name) for name in published(sae)}
        return functional_call(_Method(sae, method), tensors, args)

    def encode(self, x: Tensor) -> Tensor:
        x = self.hook_sae_input(self.reshape_fn_in(x.to(self.dtype)))
        return self.hook_sae_acts_post(self._call("encode", x))

    def decode(self, feature_acts: Tensor) -> Tensor:
        return self.reshape_fn_out(self.hook_sae_recons(self._call("decode", feature_acts)), self.d_head)

    def forward(self, x: Tensor) -> Tensor:
        if getattr(self, "W_skip", None) is None:
            return super().forward(x)
        return self.hook_sae_output(self.decode(self.encode(x)) + x.to(self.dtype) @ self.W_skip)

    def fold_W_dec_norm(self) -> None:
        raise NotImplementedError("an SAE that saelight computes keeps its rows' norms, which may decide selection")

    def fold_activation_norm_scaling_factor(self, scaling_factor: float) -> None:
        raise NotImplementedError("a converted SAE takes the model's own activations: there is no scale to fold")


register_sae_class(ARCHITECTURE, SaelightInSAELens, SaelightInSAELensConfig)
