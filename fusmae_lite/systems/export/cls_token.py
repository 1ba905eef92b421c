"""An input token that a frozen MLP block turns into a wanted one.

Fus-MAE appends CLS after XAttnEncoder (eq. 6), timm's ViT puts it before its first block. To start where Fus-MAE does,
timm's CLS c must solve c + MLP(LN(c)) = CLS. A solution exists: c -> CLS - MLP(LN(c)) is continuous (LN's epsilon
keeps it so at 0) and bounded, hence has a fixed point by Brouwer's theorem. Newton's method finds one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from timm.layers import Mlp
from torch import Tensor, nn

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
    block = nn.Sequential(copy.deepcopy(norm), copy.deepcopy(mlp)).double().cpu().requires_grad_(False)
    rng, nearest = torch.Generator().manual_seed(0), math.inf
    for start in range(STARTS):
        noise = torch.randn(len(wanted), generator=rng, dtype=torch.float64)
        c = _newton(wanted if start == 0 else wanted - block(noise), lambda c: wanted - c - block(c))
        nearest = min(nearest, float((wanted - c - block(c)).abs().max()))
        if nearest < TOLERANCE:
            return c
    raise InputError(
        f"no CLS token found that timm's first block turns into this model's (nearest {nearest:.1g} away)",
        "export it as onnx, which keeps XAttnEncoder as it is",
    )


def _newton(c: Tensor, missing: Callable[[Tensor], Tensor]) -> Tensor:
    """Where Newton's method for `missing` (c) = 0 ends from `c`."""
    left = missing(c)
    for _ in range(STEPS):
        step = torch.linalg.solve(-torch.func.jacrev(missing)(c), left)
        for halvings in range(12):
            share = 0.5**halvings
            after = missing(c + share * step)
            if after.norm() < (1 - 0.1 * share) * left.norm():
                break
        else:
            return c
        c, left = c + share * step, after
        if left.abs().max() < TOLERANCE:
            return c
    return c
