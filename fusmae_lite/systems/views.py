"""DINO-MM's views of a pair: multi-crop, its colour changes carried over to bands, RandomSensorDrop.

Sources: Caron et al., ICCV 2021, section 3.2 and appendix (crops, colours); Wang et al., IGARSS 2022 (sensors, sides).
Both change 8-bit pictures; here 0 is a band's mean over the archive at hand and 1 its deviation there. Letters: B
batch, V views (global ones first), M sensors, C channels of all sensors, s side of a view in pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fusmae_lite.core.architecture import DinoConfig

Drawn = dict[str, Tensor]  # a random choice for each view of a batch, (B, V, ..)
GLOBAL_AREA, LOCAL_AREA = (0.4, 1.0), (0.05, 0.4)
STRETCH = 4 / 3  # largest ratio of a crop's sides
JITTER, JITTER_CHANCE, GREY_CHANCE, LATER_SOLARISE_CHANCE = 0.4, 0.8, 0.2, 0.2
BLUR_SIGMA = (0.1, 2.0)  # pixels
FIRST_BLUR_CHANCE, LATER_BLUR_CHANCE, LOCAL_BLUR_CHANCE = 1.0, 0.1, 0.5


def view_sides(config: DinoConfig) -> tuple[int, int]:
    """Sides of global and local views in pixels: DINO-MM's 112 and 48 of 120, else the nearest multiples of P."""
    p, size = config.patch_size, config.image_size
    return min(round(size * 112 / 120 / p), size // p) * p, max(round(size * 48 / 120 / p), 2) * p


def draw_views(config: DinoConfig, batch: int, generator: torch.Generator | None = None) -> Drawn:
    """Every random choice of a batch's views, (B, V, ..) on the CPU, so that processes can share out a batch."""

    def uniform(low: float | Tensor = 0.0, high: float | Tensor = 1.0, *more: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, views, *more, generator=generator)

    sensors, views = len(config.modalities), config.global_crops + config.local_crops
    number = torch.arange(views)
    is_global, first = number < config.global_crops, number == 0
    low, high = (torch.where(is_global, g, x) for g, x in zip(GLOBAL_AREA, LOCAL_AREA, strict=True))
    blurred = torch.where(first, FIRST_BLUR_CHANCE, torch.where(is_global, LATER_BLUR_CHANCE, LOCAL_BLUR_CHANCE))
    area = uniform(low, high)
    ratio = uniform(-1, 1) * (-area.log()).clamp(max=math.log(STRETCH))  # of logarithms; neither side exceeds 1
    side = (area.log()[..., None] + torch.stack([ratio, -ratio], dim=-1)).mul(0.5).exp()  # width, height
    centre = (1 - side) * uniform(-1, 1, 2)
    mirrored = torch.where(uniform(0, 1, 2) < 0.5, -side, side)
    jitter = uniform(-JITTER, JITTER, sensors, 2) * (uniform(0, 1, sensors, 1) < JITTER_CHANCE)
    dropped = (uniform() < config.sensor_drop) & (sensors > 1)
    which = torch.randint(sensors, (batch, views), generator=generator)
    return {
        # (.., 2, 3), output -> input coordinates. DINO flips left and right only; a satellite has no up
        "where": torch.cat([torch.diag_embed(mirrored), centre[..., None]], dim=-1),
        "light": jitter + torch.tensor([0.0, 1.0]),  # (.., M, 2), brightness and contrast: no sun changes the radar
        "grey": uniform() < GREY_CHANCE,  # every band becomes the mean of its sensor's
        "sigma": uniform(*BLUR_SIGMA) * (uniform() < blurred),  # of a Gaussian blur, pixels
        "solarise": (uniform() < LATER_SOLARISE_CHANCE) & is_global & ~first,  # x -> -abs(x)
        "keep": ~(dropped[..., None] & (which[..., None] == torch.arange(sensors))),  # (.., M), else zeros
    }


def make_views(stacked: Tensor, drawn: Drawn, config: DinoConfig) -> list[Tensor]:
    """Views of stacked images (B, C, H, W) in the archive's units, as :func:`draw_views` drew them for these rows.

    Returns global ones (B, G, C, s, s) and, if there are any, local ones.
    """
    counts = [config.global_crops, config.local_crops]
    parts = {n: draw.to(stacked.device, non_blocking=True).split(counts, dim=1) for n, draw in drawn.items()}
    with torch.autocast(stacked.device.type, enabled=False):  # a blur is no matter of a network's precision
        return [
            _look(crop(stacked.float(), parts["where"][i], side), {n: part[i] for n, part in parts.items()}, config)
            for i, side in enumerate(view_sides(config))
            if counts[i]
        ]


def crop(images: Tensor, where: Tensor, side: int) -> Tensor:
    """(B, C, H, W) and (B, V, 2, 3) -> (B, V, C, side, side), bilinear; DINO's own is bicubic."""
    batch, views = where.shape[:2]
    grid = F.affine_grid(where.flatten(0, 1), [batch * views, 1, side, side], align_corners=False)
    tall = grid.view(batch, views * side, side, 2)  # all views as one picture: no copy of the image for each
    crops = F.grid_sample(images, tall, mode="bilinear", padding_mode="border", align_corners=False)
    return crops.unflatten(2, (views, side)).transpose(1, 2)


def _look(crops: Tensor, drawn: Drawn, config: DinoConfig) -> Tensor:
    """Change the values of (B, V, C, s, s) as drawn: light, grey, blur, solarise, and last of all drop a sensor."""
    light, grey, solarise, keep = (drawn[n][..., None, None, None] for n in ("light", "grey", "solarise", "keep"))
    looks = []
    for number, part in enumerate(crops.split(list(config.channels.values()), dim=2)):
        brightness, contrast = light[:, :, number].unbind(2)
        mean = part.mean(dim=(-2, -1), keepdim=True)
        part = (part - mean) * contrast + mean + brightness
        part = blur(torch.where(grey, part.mean(dim=2, keepdim=True), part), drawn["sigma"])
        part = torch.where(solarise, -part.abs(), part)
        looks.append(torch.where(keep[:, :, number], part, 0.0))
    return torch.cat(looks, dim=2)


def blur(views: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of (B, V, C, s, s), a sigma in pixels for each view (B, V); 0 leaves it as it is."""
    # A product with an (s, s) matrix along rows and columns: every view has its own kernel, and rows sum to 1
    place = torch.arange(views.shape[-1], device=views.device, dtype=views.dtype)
    variance = sigma.clamp(min=1e-3).square()[..., None, None, None]
    kernel = torch.exp(-(place[:, None] - place).square() / (2 * variance))
    kernel = kernel / kernel.sum(dim=-1, keepdim=True)
    return kernel @ views @ kernel.transpose(-1, -2)
