"""Sensors stacked along the channels, as SatViT takes them: the earliest fusion there is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.model.inputs import check_images


def stacked_channels(config: ModelConfig) -> int:
    """Channels of all configured sensors together: 14 for s1 and s2."""
    return sum(get_modality(name).channels for name in config.modalities)


def stack(images: Mapping[str, Tensor], model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> Tensor:
    """Modality -> (B, C_i, H, W) becomes (B, sum of all C_i, H, W), in the order of the model's configuration.

    A sensor that is missing is filled with zeros, which in normalised units is every band at its mean: an explicit
    choice (DINO-MM's, and the only one that a single patch projection leaves), unlike Fus-MAE's absent tokens.

    Raises:
        InputError: whatever :func:`~fusmae_lite.model.inputs.check_images` refuses.
    """
    images = check_images(images, model, masks)
    config: ModelConfig = model.config  # type: ignore[assignment]
    first = next(iter(images.values()))
    absent = {name: get_modality(name).channels for name in config.modalities if name not in images}
    zeros = {name: first.new_zeros(first.shape[0], count, *first.shape[2:]) for name, count in absent.items()}
    return torch.cat([images[name] if name in images else zeros[name] for name in config.modalities], dim=1)
