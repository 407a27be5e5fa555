"""HardConcrete as one would write it first: plain torch operators, autograd, torch's AdamW. No peer has this variant.

Shapes: B batch, D d_in, F d_sae.
"""

import math

import torch
from torch import Tensor, nn

GAMMA, ZETA, BETA = -0.1, 1.1, 0.2


class HardConcrete(nn.Module):
    def __init__(self, d_in: int, d_sae: int) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(d_in, d_sae), nn.Linear(d_sae, d_in, bias=False)
        self.b_mag, self.b_dec = nn.Parameter(torch.zeros(d_sae)), nn.Parameter(torch.zeros(d_in))

    def forward(self, x_BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_alpha_BF = self.encoder(x_BD - self.b_dec)
        u_BF = torch.rand_like(log_alpha_BF).clamp(1e-6, 1 - 1e-6)
        s_BF = torch.sigmoid((torch.log(u_BF) - torch.log(1 - u_BF) + log_alpha_BF) / BETA)
        gates_BF = (s_BF * (ZETA - GAMMA) + GAMMA).clamp(0, 1)
        f_BF = gates_BF * torch.relu(log_alpha_BF + self.b_mag)
        penalty = torch.sigmoid(log_alpha_BF - BETA * math.log(-GAMMA / ZETA)).sum(1).mean()
        return self.decoder(f_BF) + self.b_dec, f_BF, penalty


class NaiveLoop:
    """SAEs that share each batch: each in turn forward, backward, clip, AdamW."""

    def __init__(self, n: int, d_in: int, d_sae: int, dtype: torch.dtype) -> None:
        self.saes = [HardConcrete(d_in, d_sae) for _ in range(n)]
        self.optimizers = [torch.optim.AdamW(sae.parameters(), lr=1e-4, fused=True) for sae in self.saes]
        self.since_fired = [torch.zeros(d_sae) for _ in self.saes]
        self.autocast = dtype != torch.float32

    def __call__(self, x_BD: Tensor) -> None:
        for sae, optimizer, since_F in zip(self.saes, self.optimizers, self.since_fired, strict=True):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
                x_hat_BD, f_BF, penalty = sae(x_BD)
                loss = (x_BD - x_hat_BD).square().mean() + 1e-3 * penalty
            loss.backward()
            since_F += len(x_BD)
            since_F[(f_BF > 0).any(0)] = 0
            nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
