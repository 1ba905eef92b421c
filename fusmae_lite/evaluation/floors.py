"""Floors: features that need no training. An encoder that does not pass them has learnt nothing worth its training."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from skimage.feature import local_binary_pattern
from torch import Tensor, nn

from fusmae_lite.core.config import ModelConfig
from fusmae_lite.core.seeding import generator
from fusmae_lite.model.system import Latents, System

FILTERS = 512
#: Name -> title, in the order of the tables.
FLOORS = {
    "statistics": "band statistics",
    "texture": "handcrafted texture",
    "convolutions": "random convolutions",
}


class Floor(System):
    """Computed features, one vector a pair, the sensors side by side; every protocol takes it for an encoder."""

    def __init__(self, config: ModelConfig, title: str, features: Callable[[Tensor], Tensor], stacked: bool) -> None:
        super().__init__(config)
        self.title, self._features, self._stacked = title, features, stacked
        self.place = nn.Parameter(torch.empty(0))  # says which device it is on

    def encode(self, images: dict[str, Tensor]) -> Latents:
        """Modality -> (B, C, H, W), normalised, as for any encoder."""
        parts = [torch.cat(list(images.values()), dim=1)] if self._stacked else images.values()
        return Latents({}, {"mean": torch.cat([self._features(part) for part in parts], dim=1)})


def band_statistics(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 2 C): mean and deviation of each band."""
    return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1)


def texture(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 21 C): band statistics, quantiles, gradients, coarse contrast, local binary patterns."""
    marks = torch.tensor([0.05, 0.25, 0.75, 0.95], device=images.device)
    quantiles = torch.quantile(images.flatten(2), marks, dim=2).permute(1, 2, 0).flatten(1)
    gradients = [band_statistics(images.diff(dim=axis).abs()) for axis in (2, 3)]
    coarse = F.avg_pool2d(images, 5).std(dim=(2, 3))
    levels = images.detach().cpu().numpy()
    spread = np.ptp(levels, axis=(2, 3), keepdims=True).clip(1e-6)
    levels = ((levels - levels.min(axis=(2, 3), keepdims=True)) / spread * 255).astype(np.uint8)
    codes = np.array([[local_binary_pattern(band, 8, 1, "uniform") for band in image] for image in levels])
    histogram = np.stack([(codes == code).mean(axis=(2, 3)) for code in range(10)], axis=2)
    patterns = torch.from_numpy(histogram).to(images).flatten(1)
    return torch.cat([band_statistics(images), quantiles, *gradients, coarse, patterns], dim=1)


def random_convolutions(channels: int, seed: int) -> Callable[[Tensor], Tensor]:
    """(B, C, H, W) -> (B, 1024): 512 random 5 x 5 filters over all bands, rectified; mean and maximum of each."""
    rng = generator("initialise", seed, 51)
    filters = torch.randn(FILTERS, channels, 5, 5, generator=rng)
    filters /= filters.flatten(1).norm(dim=1)[:, None, None, None]
    bias = 0.5 * torch.randn(FILTERS, generator=rng)

    def features(images: Tensor) -> Tensor:
        answers = F.conv2d(images, filters.to(images), bias.to(images)).relu()
        return torch.cat([answers.mean(dim=(2, 3)), answers.amax(dim=(2, 3))], dim=1)

    return features


def floors(config: ModelConfig, sensors: tuple[str, ...], seed: int = 0) -> dict[str, Floor]:
    """The floors for some sensors, by name; `seed` draws the random filters."""
    convolutions = random_convolutions(sum(config.channels[name] for name in sensors), seed)
    features = {"statistics": band_statistics, "texture": texture, "convolutions": convolutions}
    return {name: Floor(config, title, features[name], name == "convolutions") for name, title in FLOORS.items()}
