"""Section 3.3: which patches the encoder may see. ``True`` means masked, that is hidden from the encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fusmae_lite.core.errors import InputError


def random_mask(batch: int, tokens: int, kept: int, generator: torch.Generator | None = None) -> Tensor:
    """A uniformly drawn mask for each sample: BoolTensor (B, N) with exactly N - `kept` True in every row.

    Drawn on the CPU, so that a seed gives the same mask on every device.
    """
    order = torch.rand(batch, tokens, generator=generator).argsort(dim=1)
    mask = torch.ones(batch, tokens, dtype=torch.bool)
    return mask.scatter_(1, order[:, :kept], False)


def independent_masks(
    batch: int, tokens: int, kept: int, modalities: Sequence[str], generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Independent masking: every modality draws its own patches. Returns modality -> (B, N)."""
    return {name: random_mask(batch, tokens, kept, generator) for name in modalities}


def consistent_masks(
    batch: int, tokens: int, kept: int, modalities: Sequence[str], generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Consistent masking: one draw, the same patches hidden in every modality. Returns modality -> (B, N)."""
    mask = random_mask(batch, tokens, kept, generator)
    return dict.fromkeys(modalities, mask)


STRATEGIES = {"independent": independent_masks, "consistent": consistent_masks}


def sample_masks(
    strategy: str,
    batch: int,
    tokens: int,
    kept: int,
    modalities: Sequence[str],
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> dict[str, Tensor]:
    """Masks of a named strategy (``independent`` or ``consistent``), moved to `device`.

    Args:
        strategy: a key of :data:`STRATEGIES`.
        batch: B.
        tokens: N, patches of one modality.
        kept: visible patches of each modality, ``ModelConfig.kept``.
        modalities: which sensors need a mask.
        generator: source of randomness (CPU); the global one if absent.
        device: where the masks are wanted.

    Raises:
        InputError: unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"unknown masking {strategy!r}", f"choose one of {', '.join(STRATEGIES)}")
    masks = STRATEGIES[strategy](batch, tokens, kept, modalities, generator)
    return {name: mask.to(device) for name, mask in masks.items()}


def draw_together(
    modalities: Sequence[str], dropout: float, generator: torch.Generator | None = None
) -> list[tuple[str, ...]]:
    """Which sensors a step shows together: all, or with probability `dropout` each alone, one pass after the other.

    One draw for the whole batch: its samples must have equally many tokens. Alone, a sensor is encoded as a trained
    model encodes it where it is all there is.
    """
    if len(modalities) > 1 and torch.rand((), generator=generator) < dropout:
        return [(name,) for name in modalities]
    return [tuple(modalities)]


def visible_indices(mask: Tensor) -> Tensor:
    """Positions of the visible patches in ascending order: (B, N) bool -> (B, n) long.

    Raises:
        InputError: the rows keep different numbers of patches (they could not share a tensor), or none at all.
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
