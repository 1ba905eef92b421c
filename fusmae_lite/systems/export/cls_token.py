"""An input token that a frozen MLP block turns into a wanted one.

Fus-MAE appends CLS after XAttnEncoder (eq. 6), timm's ViT puts it before its first block. To start where Fus-MAE does,
timm's CLS c must solve c + MLP(LN(c)) = CLS. A solution exists: c -> CLS - MLP(LN(c)) is continuous (LN's epsilon
keeps it so at 0) and bounded, hence has a fixed point by Brouwer's theorem. Newton's method finds one.
"""

from __future__ import annotations

import math

import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional as F

from fusmae_lite.core.errors import InputError

STARTS, STEPS, TOLERANCE = 100, 40, 1e-10


@torch.no_grad()
def token_before(norm: nn.LayerNorm, mlp: Mlp, wanted: Tensor) -> Tensor:
    """c (D,) in float64 with c + MLP(LN(c)) = `wanted` (D,), to 1e-10.

    Newton with a step that is halved until it helps, from `wanted` and then from where the map takes random tokens.

    Raises:
        InputError: no start led there.
    """
    wanted = wanted.detach().double().flatten().cpu()
    weights = {name: p.detach().double().cpu() for part in (norm, mlp) for name, p in part.named_parameters()}
    rng = torch.Generator().manual_seed(0)
    best = math.inf
    for start in range(STARTS):
        noise = torch.randn(len(wanted), generator=rng, dtype=torch.float64)
        c = wanted.clone() if start == 0 else wanted - _mlp(noise, norm.eps, weights)[0]
        c, residual = _newton(c, wanted, norm.eps, weights)
        best = min(best, residual)
        if residual < TOLERANCE:
            return c
    raise InputError(
        f"no CLS token found that timm's first block turns into this model's (nearest {best:.1g} away)",
        "export it as onnx, which keeps XAttnEncoder as it is",
    )


def _newton(c: Tensor, wanted: Tensor, eps: float, weights: dict[str, Tensor]) -> tuple[Tensor, float]:
    """Where Newton's method ends from `c`, and the largest number still missing there."""
    value, jacobian = _mlp(c, eps, weights)
    missing = wanted - c - value
    for _ in range(STEPS):
        step = torch.linalg.solve(jacobian + torch.eye(len(c), dtype=c.dtype), missing)
        for halvings in range(12):
            share = 0.5**halvings
            there = c + share * step
            value, slope = _mlp(there, eps, weights)
            left = wanted - there - value
            if left.norm() < (1 - 0.1 * share) * missing.norm():
                break
        else:
            break
        c, missing, jacobian = there, left, slope
        if missing.abs().max() < TOLERANCE:
            break
    return c, float(missing.abs().max())


def _mlp(c: Tensor, eps: float, weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """MLP(LN(c)) of one token (D,), and its Jacobian (D, D)."""
    deviation = (c.var(correction=0) + eps).sqrt()
    normed = (c - c.mean()) / deviation
    hidden = F.linear(normed * weights["weight"] + weights["bias"], weights["fc1.weight"], weights["fc1.bias"])
    value = F.linear(F.gelu(hidden), weights["fc2.weight"], weights["fc2.bias"])
    density = torch.exp(-hidden.square() / 2) / (2 * math.pi) ** 0.5
    gelu_slope = 0.5 * (1 + torch.erf(hidden / 2**0.5)) + hidden * density
    through = weights["fc2.weight"] @ (gelu_slope[:, None] * weights["fc1.weight"] * weights["weight"])
    size = len(c)  # d normed / d c = (1 - ones / D - normed normed^T / D) / deviation
    slope = through - through.mean(dim=1, keepdim=True) - torch.outer(through @ normed, normed) / size
    return value, slope / deviation
