"""How good the SAEs of a bank are on data they do not train on.

Shapes: B batch, D d_in (d_out of a target), G true features.
"""

from torch import Tensor, nn

from saelight.metrics import mmcs, token_metrics
from saelight.saes import SAE


class Evaluation(nn.Module):
    """The metrics of every SAE, gathered over batches and over ranks."""

    def __init__(self, saes: list[SAE]) -> None:
        super().__init__()
        self.metrics = nn.ModuleList(token_metrics(sae.d_out, sae.d_sae) for sae in saes)

    def update(self, saes: list[SAE], x_BD: Tensor, y_BD: Tensor) -> None:
        """Add one batch of normalised activations and targets."""
        for sae, metrics in zip(saes, self.metrics, strict=True):
            f_BF = sae.encode(x_BD)
            metrics.update(x=y_BD, x_hat=sae.reconstruct(f_BF, x_BD), f=f_BF)

    def finish(self, saes: list[SAE], truth_GD: Tensor | None) -> list[dict[str, float]]:
        """Each SAE's metrics over all that was added, and MMCS where the true features are known; then start over."""
        results = []
        for sae, metrics in zip(saes, self.metrics, strict=True):
            results.append({key: float(value) for key, value in metrics.compute().items()})
            if truth_GD is not None:
                results[-1]["mmcs"] = float(mmcs(truth_GD.to(sae.W_dec), sae.W_dec, signed=sae.signed))
            metrics.reset()
        return results
