"""Sensors stacked along the channels, as SatViT takes them: the earliest fusion there is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fusmae_lite.config import ModelConfig
from fusmae_lite.errors import InputError
from fusmae_lite.sensors import get_modality


def stacked_channels(config: ModelConfig) -> int:
    """Channels of all configured sensors together: 14 for s1 and s2."""
    return sum(get_modality(name).channels for name in config.modalities)


def stack(images: Mapping[str, Tensor], config: ModelConfig) -> Tensor:
    """Modality -> (B, C_i, H, W) becomes (B, sum of all C_i, H, W), in the order of the configuration.

    A sensor that is missing is filled with zeros, which in normalised units is every band at its mean: an explicit
    choice (DINO-MM's, and the only one that a single patch projection leaves), unlike Fus-MAE's absent tokens.

    Raises:
        InputError: no modality, one that is not configured, or an image of another shape.
    """
    unknown = [name for name in images if name not in config.modalities]
    if unknown or not images:
        what = f"images hold modality {unknown[0]!r}" if unknown else "images hold no modality"
        raise InputError(what, f"this model takes {', '.join(config.modalities)}")
    for name, image in images.items():
        wanted = (get_modality(name).channels, config.image_size, config.image_size)
        if image.ndim != 4 or tuple(image.shape[1:]) != wanted:
            raise InputError(
                f"images[{name!r}] has shape {tuple(image.shape)}", f"give (B, {', '.join(map(str, wanted))})"
            )
    first = next(iter(images.values()))
    absent = {name: get_modality(name).channels for name in config.modalities if name not in images}
    zeros = {name: first.new_zeros(first.shape[0], count, *first.shape[2:]) for name, count in absent.items()}
    return torch.cat([images[name] if name in images else zeros[name] for name in config.modalities], dim=1)
