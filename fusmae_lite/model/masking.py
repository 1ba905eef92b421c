"""Section 3.3: which patches the encoder may see. ``True`` means masked, that is hidden from the encoder.

Independent and consistent masks are the paper's, cloud masks ours.
"""

from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from fusmae_lite.core.architecture import Masking
from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import DECIBEL, get_modality

#: Puffs that a synthetic cloud is made of.
PUFFS = 4


def random_mask(batch: int, tokens: int, kept: int, generator: torch.Generator | None = None) -> Tensor:
    """A mask for each sample: bool (B, N) with exactly N - `kept` True a row, drawn on the CPU, whatever the device."""
    order = torch.rand(batch, tokens, generator=generator).argsort(dim=1)
    mask = torch.ones(batch, tokens, dtype=torch.bool)
    return mask.scatter_(1, order[:, :kept], False)


def independent_masks(
    batch: int, tokens: int, kept: int, modalities: Sequence[str], generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Every modality draws its own patches: modality -> (B, N)."""
    return {name: random_mask(batch, tokens, kept, generator) for name in modalities}


def consistent_masks(
    batch: int, tokens: int, kept: int, modalities: Sequence[str], generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """One draw, the same patches hidden in every modality: modality -> (B, N)."""
    return dict.fromkeys(modalities, random_mask(batch, tokens, kept, generator))


def cloud_shapes(batch: int, tokens: int, hidden: int, generator: torch.Generator | None = None) -> Tensor:
    """Synthetic cloud shapes, a few overlapping puffs on a square grid: bool (B, N), `hidden` True a row."""
    grid = round(tokens**0.5)
    places = torch.cartesian_prod(torch.arange(grid), torch.arange(grid)).float()
    middle = grid * torch.rand(batch, 1, 2, generator=generator)
    puffs = middle + grid / 6 * torch.randn(batch, PUFFS, 2, generator=generator)
    size = 0.5 + torch.rand(batch, 1, PUFFS, generator=generator)
    nearest = (torch.cdist(places.expand(batch, -1, -1), puffs) / size).amin(dim=-1).argsort(dim=1)
    return torch.zeros(batch, tokens, dtype=torch.bool).scatter_(1, nearest[:, :hidden], True)


def cloud_masks(
    batch: int, tokens: int, kept: int, modalities: Sequence[str], generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """One cloud hides the same area of every optical sensor; radar sees through and draws its own patches."""
    cloud = cloud_shapes(batch, tokens, tokens - kept, generator)
    radar = {name: get_modality(name).units == DECIBEL for name in modalities}
    return {name: random_mask(batch, tokens, kept, generator) if sees else cloud for name, sees in radar.items()}


STRATEGIES = {name: globals()[f"{name}_masks"] for name in get_args(Masking)}


def sample_masks(
    strategy: str,
    batch: int,
    tokens: int,
    kept: int,
    modalities: Sequence[str],
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Masks by the strategy of that name in :data:`STRATEGIES`: modality -> (B, N), `kept` of N patches visible.

    `generator` is one of the CPU; the global one if absent.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"unknown masking {strategy!r}", f"choose one of {', '.join(STRATEGIES)}")
    return STRATEGIES[strategy](batch, tokens, kept, modalities, generator)


def draw_together(
    modalities: Sequence[str], dropout: float, generator: torch.Generator | None = None
) -> list[tuple[str, ...]]:
    """Which sensors a step shows together: all, or with probability `dropout` each alone, one pass after the other.

    One draw for the whole batch, whose samples must have equally many tokens.
    """
    if len(modalities) > 1 and torch.rand((), generator=generator) < dropout:
        return [(name,) for name in modalities]
    return [tuple(modalities)]


def visible_indices(mask: Tensor) -> Tensor:
    """Positions of the visible patches in ascending order: (B, N) bool -> (B, n) long.

    InputError where rows keep different numbers of patches (they could not share a tensor), or none at all.
    """
    counts = (~mask).sum(dim=1)
    if not bool((counts == counts[0]).all()) or counts[0] == 0:
        raise InputError(
            f"mask keeps between {int(counts.min())} and {int(counts.max())} patches per sample",
            "keep the same number, at least one, in every sample of a batch",
        )
    # Stable: visible patches (False = 0) come first and stay in reading order.
    return mask.to(torch.uint8).argsort(dim=1, stable=True)[:, : int(counts[0])]


def check_masks(masks: Mapping[str, Tensor], batch: int, tokens: int, modalities: Sequence[str]) -> None:
    """Raise :class:`InputError` unless there is one BoolTensor (B, N) for each of `modalities`."""
    for name in modalities:
        if name not in masks:
            raise InputError(f"no mask for modality {name!r}", f"give one for each of {', '.join(modalities)}")
        mask = masks[name]
        if mask.dtype != torch.bool or tuple(mask.shape) != (batch, tokens):
            raise InputError(
                f"mask of {name!r} is {mask.dtype} {tuple(mask.shape)}",
                f"give a bool tensor of shape ({batch}, {tokens}), True where masked",
            )
