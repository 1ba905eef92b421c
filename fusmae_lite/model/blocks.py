"""The plain Transformer blocks of an encoder, how weights start, and stochastic depth drawn for the whole batch.

Which samples skip a block depends neither on the number of devices nor on the pieces a batch is cut into.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from timm.layers import DropPath
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fusmae_lite.core.seeding import generator
from fusmae_lite.model.cross_attention import SelfAttention


class Blocks(nn.ModuleList):
    """timm's pre-norm blocks, one after the other; stochastic depth grows linearly, as in timm's own ViT."""

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        mlp_ratio: float,
        drop_path: float = 0.0,
        attention: type[nn.Module] = SelfAttention,
    ) -> None:
        norm = partial(nn.LayerNorm, eps=1e-6)  # said here, whatever timm's default becomes
        rates = torch.linspace(0, drop_path, depth, device="cpu").tolist()
        super().__init__(
            Block(width, heads, mlp_ratio, qkv_bias=True, drop_path=rate, norm_layer=norm, attn_layer=attention)
            for rate in rates
        )
        self.recompute = False

    def outputs(self, z: Tensor) -> Iterator[Tensor]:
        """What each block makes of (B, L, D), from the first to the last."""
        for block in self:
            z = checkpoint(block, z, use_reentrant=False) if self.recompute and torch.is_grad_enabled() else block(z)
            yield z

    def forward(self, z: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        for output in self.outputs(z):
            z = output
        return z


def initialise(model: nn.Module) -> None:
    """Xavier-uniform for every Linear, as in MAE; small normal noise for CLS and mask tokens."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters():
        if name.endswith(("cls_token", "mask_token")):
            nn.init.normal_(parameter, std=0.02)


class BatchDropPath(nn.Module):
    """timm's ``DropPath``, drawn by a sample's place in the whole batch; see :func:`place`.

    A share `rate` of the samples skips the branch. Modules of a model differ in `number`, so that each draws its own.
    """

    def __init__(self, rate: float, number: int) -> None:
        super().__init__()
        self.rate, self.number = rate, number
        self.counters: tuple[int, ...] = ()
        self.batch = 0
        self.rows: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(rows, ..), or (rows x views, ..) with the views of a sample side by side."""
        return x * self._kept(x) if self.training else x

    @torch.compiler.disable
    def _kept(self, x: Tensor) -> Tensor:
        """0 or 1 / (1 - rate) for each sample; the same again when activations are recomputed."""
        assert self.rows is not None  # placed before each forward pass
        views = len(x) // len(self.rows)
        rng = generator("dropout", *self.counters, self.number, views, x.shape[1])
        kept = torch.rand(self.batch, views, generator=rng)[self.rows] >= self.rate
        shape = (len(x), *[1] * (x.ndim - 1))
        return (kept.flatten().to(x.dtype) / (1 - self.rate)).view(shape).to(x.device, non_blocking=True)


def draw_by_place(model: nn.Module) -> None:
    """Put a :class:`BatchDropPath` in the place of each ``DropPath`` of `model`."""
    number = 0
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, DropPath) and child.drop_prob:
                setattr(module, name, BatchDropPath(child.drop_prob, number))
                number += 1


def place(model: nn.Module, rows: Tensor, batch: int, counters: Sequence[int]) -> None:
    """Say which samples the next forward pass sees: `rows` (int64) of a whole batch of size `batch`.

    The draw follows from `counters`, such as (seed, step).
    """
    for module in model.modules():
        if isinstance(module, BatchDropPath):
            module.rows, module.batch, module.counters = rows, batch, tuple(counters)
