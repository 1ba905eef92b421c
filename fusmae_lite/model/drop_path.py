"""Stochastic depth drawn for the whole batch: which samples skip a block depends neither on devices nor on pieces."""

from collections.abc import Sequence

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from fusmae_lite.core.seeding import generator


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
