"""The data module over synthetic activations."""

import torch

from saelight.data.datamodule import Normalise, RowsDataModule, Span
from saelight.data.stream.order import cut, sample
from saelight.data.synthetic import BLOCK, SyntheticRows
from saelight.errors import UserError

_SCALE_ROWS = 16 * BLOCK


class SyntheticDataModule(RowsDataModule):
    """Sparse combinations of known directions, x = Σ a_i g_i + noise, made on demand (nothing is stored).

    Args:
        d_in: Width of an activation.
        n_features: True directions: random unit vectors, the ground truth that MMCS compares with.
        mean_l0: Features that fire in a row, on average.
        zipf_exponent: How fast frequencies fall with rank: p_i ∝ (i + 1)^-zipf_exponent. 0 makes all equal.
        magnitude_mean: Mean of the normal law whose absolute value is a firing feature's magnitude.
        magnitude_std: Standard deviation of that law.
        correlation: Correlation, in [0, 1), of the Gaussian factors that make features of one group fire together.
            Frequencies stay as they are.
        group_size: Consecutive features that form a group; matters with `correlation` only.
        noise: Standard deviation of Gaussian noise on each coordinate.
        rows: Training rows; an epoch goes through them once.
        val_rows: Validation rows, drawn beside the training rows. 0: no validation.
        batch_size: Rows of a batch on each process.
        val_batch_size: Rows of a validation, test or prediction batch on each process. Default: `batch_size`.
        max_samples: Train on this many rows at most, a seeded uniform choice of blocks. Default: on all.
        normalise: rms: scale by one number so that E‖x‖² = d_in (estimated on 8192 rows). none: as made.
        seed: Seed of directions, rows and order.
        predict_rows: Rows that `predict` runs over, from the first on. Default: all, validation's last.
    """

    def __init__(
        self,
        d_in: int = 64,
        n_features: int = 256,
        mean_l0: float = 8.0,
        zipf_exponent: float = 0.5,
        magnitude_mean: float = 1.0,
        magnitude_std: float = 0.25,
        correlation: float = 0.0,
        group_size: int = 8,
        noise: float = 0.0,
        rows: int = 200_000,
        val_rows: int = 16_384,
        batch_size: int = 4096,
        val_batch_size: int | None = None,
        max_samples: int | None = None,
        normalise: Normalise = "rms",
        seed: int = 0,
        predict_rows: int | None = None,
    ) -> None:
        if rows < 1 or val_rows < 0:
            raise UserError(f"data.rows must be at least 1 and data.val_rows at least 0, got {rows} and {val_rows}")
        if seed < 0:
            raise UserError(f"data.seed must be at least 0, got {seed}")
        source = SyntheticRows(
            rows=rows + val_rows,
            d_in=d_in,
            n_features=n_features,
            mean_l0=mean_l0,
            zipf_exponent=zipf_exponent,
            magnitude_mean=magnitude_mean,
            magnitude_std=magnitude_std,
            correlation=correlation,
            group_size=group_size,
            noise=noise,
            seed=seed,
        )
        val = Span(source, rows, rows + val_rows) if val_rows else None
        super().__init__(
            source,
            rows,
            val,
            _mean_square_norm(source),
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            max_samples=max_samples,
            predict_rows=predict_rows,
            normalise=normalise,
            seed=seed,
        )
        self.features = source.features


def _mean_square_norm(rows: SyntheticRows) -> float:
    """Of some rows that the settings alone decide."""
    blocks = sample(cut(0, rows.n_rows), _SCALE_ROWS, rows.seed)
    total = 0.0
    for start, size in zip(*blocks, strict=True):
        x = torch.empty(int(size), rows.d_in)
        rows.read(int(start), x)
        total += x.double().square().sum().item()
    return total / blocks.rows
