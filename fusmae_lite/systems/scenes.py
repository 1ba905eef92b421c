"""A model over a scene of any size: in tiles, in bounded memory; what overlaps is blended by smooth weights.

The scene is worked off in boxes of about :data:`BOX` pixels. Patches with a pixel of no data are hidden from the
encoder, and so is what lies beyond the edge of the scene.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.progress import followed
from fusmae_lite.core.sensors import get_modality
from fusmae_lite.data.grids import Box
from fusmae_lite.data.pairs import denormalise, normalise
from fusmae_lite.data.scenes import Hidden, Scene
from fusmae_lite.model.masking import visible_indices
from fusmae_lite.model.system import Latents, System

#: Pixels; small enough that a scene of 1,000 px a side has several whole ones, and memory stays the same from there on.
BOX = 480
BATCH = 16
#: Systems that make one vector of both sensors and cannot leave out patches, or a sensor.
_WHOLE = ("late", "dino")
Arrays = dict[str, np.ndarray]
Tensors = dict[str, Tensor]


class Tile(NamedTuple):
    """A square image of the scene: sensor -> (C, H, W) normalised, and -> (N,) True where a patch is hidden."""

    box: Box
    images: Tensors
    hidden: Tensors

    def shown(self) -> tuple[tuple[str, int], ...]:
        """Sensors that show a patch at all, and how many."""
        counts = ((name, int((~hidden).sum())) for name, hidden in self.hidden.items())
        return tuple((name, count) for name, count in counts if count)


class Vectors(NamedTuple):
    """Of some images of a scene: where each lies, what it is, and the share of its pixels that the encoder saw."""

    boxes: list[Box]
    values: Tensor  # (B, D)
    seen: list[float]


def embed(model: System, scene: Scene) -> Iterator[Vectors]:
    """A vector for each image, side by side from the upper left; none for an image that shows no whole patch.

    Images at the right and lower edge are cut there. Visible patches alone are pooled.
    """
    size, area = model.config.image_size, len(model.config.modalities) * model.config.tokens
    for _, tiles, *_ in _boxes(model, scene, size, "embed"):
        for batch, images, masks in _batches(model, tiles):
            z = _encoded(model, images, masks).pooled(model.pooling)
            seen = [sum(count for _, count in tile.shown()) / area for tile in batch]
            yield Vectors([tile.box.cut(scene.whole) for tile in batch], z.float().cpu(), seen)


def embed_tokens(model: System, scene: Scene) -> Iterator[tuple[Box, np.ndarray]]:
    """The embedding of each patch of P pixels, as (Box in patches, (D, h, w) float32): the mean over its sensors.

    NaN where neither sensor shows the patch. Patches are cut at the right and lower edge of the scene.
    """
    side, grid = model.config.patch_size, model.config.grid
    whole, weights = Box(0, 0, scene.height // side, scene.width // side), _window(grid)
    for box, tiles, *_ in _boxes(model, scene, _stride(model), "tokens"):
        box = Box(box.top // side, box.left // side, -(-box.bottom // side), -(-box.right // side)).cut(whole)
        blend = _Blend(box, model.config.width)
        for batch, images, masks in _batches(model, tiles):
            tokens = _encoded(model, images, masks).tokens
            total, count = (torch.zeros(len(batch), grid**2, d) for d in (model.config.width, 1))
            for name, z in tokens.items():
                index = visible_indices(masks[name] if name in masks else next(iter(masks.values())))[..., None]
                total.scatter_add_(1, index.expand_as(z), z.float().cpu())
                count.scatter_add_(1, index, torch.ones(*z.shape[:2], 1))
            means = (total / count.clamp(min=1)).transpose(1, 2).unflatten(2, (grid, grid))
            there = (count > 0).view(-1, grid, grid) * weights
            for tile, values, weight in zip(batch, means, there, strict=True):
                blend.add(tile.box.top // side, tile.box.left // side, values, weight)
        if box.bottom > box.top and box.right > box.left:
            yield box, blend.mean()


def predict(
    model: System, scene: Scene, sensor: str = "s2", mask: Hidden | None = None
) -> Iterator[tuple[Box, np.ndarray, np.ndarray]]:
    """One sensor with its hidden pixels predicted from what both show: (Box, (C, h, w) float32, (h, w) True if hidden).

    Hidden is what `mask` says, or without one what is no data. Other pixels stay as they are, no data NaN. So do hidden
    pixels farther than an image from anything visible in this sensor: its decoder then has nothing to start from.
    """
    c = model.config
    if not model.reconstructs or c.normalize_target or sensor not in c.modalities:
        why = "each patch to its own scale" if c.normalize_target else f"no pixels of {sensor}"
        raise InputError(f"{model.title} of these weights predicts {why}", "choose a masked autoencoder of that sensor")
    weights = _window(c.image_size)
    for box, tiles, pixels, measured in _boxes(model, scene, _stride(model), "predict", sensor, mask):
        hidden = ~measured if mask is None else mask.read(box)
        pixels = np.where(measured, pixels, np.nan)
        if hidden.any():
            blend = _Blend(box, len(pixels))
            needed = [tile for tile in tiles if tile.hidden[sensor].any() and not tile.hidden[sensor].all()]
            for batch, images, masks in _batches(model, needed):
                with torch.inference_mode():
                    made = model(images, masks).images()[sensor].float().cpu()
                shares = 1 - masks[sensor].float().mean(dim=1)  # a tile that sees more of it knows more
                for tile, values, share in zip(batch, denormalise(made, sensor), shares, strict=True):
                    blend.add(tile.box.top, tile.box.left, values, weights * share)
            least, most = get_modality(sensor).valid or (-np.inf, np.inf)
            pixels[:, hidden] = blend.mean()[:, hidden].clip(least, most)
        yield box, pixels.astype(np.float32, copy=False), hidden


class _Blend:
    """Weighted mean of what tiles say of a box."""

    def __init__(self, box: Box, channels: int) -> None:
        self.box = box
        shape = box.bottom - box.top, box.right - box.left
        self.total, self.weight = torch.zeros(channels, *shape), torch.zeros(shape)

    def add(self, top: int, left: int, values: Tensor, weights: Tensor) -> None:
        """(C, h, w) and (h, w) with the upper left corner there; what lies outside of the box is left out."""
        whole = Box(top, left, top + weights.shape[0], left + weights.shape[1])
        own, inside = (whole.cut(self.box).of(of).slices for of in (whole, self.box))
        self.total[:, *inside] += values[:, *own] * weights[own]
        self.weight[inside] += weights[own]

    def mean(self) -> np.ndarray:
        """(C, h, w); NaN where nothing was added."""
        return (self.total / torch.where(self.weight > 0, self.weight, torch.nan)).numpy()


def _window(side: int) -> Tensor:
    """Weights of a tile's pixels, (side, side): a squared sine, which falls to nearly 0 at its edges."""
    weights = torch.sin(torch.pi * (torch.arange(side) + 0.5) / side) ** 2
    return weights[:, None] * weights


def _stride(model: System) -> int:
    """Pixels from one tile to the next where they overlap by a third, in whole patches."""
    return max(model.config.grid * 2 // 3, 1) * model.config.patch_size


def _boxes(
    model: System, scene: Scene, stride: int, title: str, sensor: str = "s2", mask: Hidden | None = None
) -> Iterator[tuple[Box, list[Tile], np.ndarray, np.ndarray]]:
    """Every part of the scene, the tiles that overlap it, and what a sensor has there: pixels, True where measured.

    `mask` hides pixels of that sensor in the tiles.
    """
    size, step = model.config.image_size, max(BOX // stride, 1) * stride
    if unknown := set(model.config.modalities) - set(scene.rasters):
        raise InputError(f"these weights take {', '.join(unknown)} too, a scene has s1 and s2", "choose other weights")
    if min(scene.height, scene.width) < size:
        what = f"{scene.grid.path} is {scene.width} x {scene.height} px, smaller than an image of {size} px"
        raise InputError(what, "choose a larger scene, or weights for smaller images")
    corners = [(y, x) for y in range(0, scene.height, step) for x in range(0, scene.width, step)]
    for top, left in followed(corners, title, len(corners)):
        box = Box(top, left, top + step, left + step).cut(scene.whole)
        rows = _starts(top, box.bottom, scene.height, size, stride)
        columns = _starts(left, box.right, scene.width, size, stride)
        around = Box(rows[0], columns[0], rows[-1] + size, columns[-1] + size).cut(scene.whole)
        images, measured = scene.read(around)
        inside = box.of(around).slices
        pixels, there = images[sensor][:, *inside], measured[sensor][inside]
        if mask is not None:
            measured = {**measured, sensor: measured[sensor] & ~mask.read(around)}
        tiles = list(_cut(model, images, measured, rows, columns))
        yield box, tiles, pixels, there
        tiles.clear()  # or two boxes would be in memory at once


def _starts(first: int, end: int, side: int, size: int, stride: int) -> Sequence[int]:
    """Where tiles begin that overlap `first` to `end` of a side; none that only covers what its neighbour does."""
    begin = max(-(-(first - size + 1) // stride), 0) * stride
    return range(begin, min(end, max(side - size + stride, 1)), stride)


def _cut(
    model: System, images: Arrays, measured: Arrays, rows: Sequence[int], columns: Sequence[int]
) -> Iterator[Tile]:
    """Tiles of one part of the scene, which begins at the first row and column."""
    c = model.config
    size, normal, hidden = c.image_size, {}, {}
    for name in c.modalities:
        height, width = measured[name].shape
        edge = (0, columns[-1] - columns[0] + size - width, 0, rows[-1] - rows[0] + size - height)
        normal[name] = F.pad(normalise(torch.from_numpy(images[name]), name), edge)
        gaps = F.pad(torch.from_numpy(~measured[name]).float(), edge, value=1.0)
        hidden[name] = F.max_pool2d(gaps[None], c.patch_size, 1)[0] > 0  # of the patch that begins at a pixel
    for y, x in ((y - rows[0], x - columns[0]) for y in rows for x in columns):
        patches = (slice(y, y + size, c.patch_size), slice(x, x + size, c.patch_size))
        masks = {name: hidden[name][patches].flatten() for name in c.modalities}
        if c.system in ("satvit", "dino"):  # one token for all sensors
            masks = dict.fromkeys(masks, torch.stack(list(masks.values())).any(dim=0))
        parts = {name: normal[name][:, y : y + size, x : x + size] for name in c.modalities}
        yield Tile(Box(y + rows[0], x + columns[0], y + rows[0] + size, x + columns[0] + size), parts, masks)


def _batches(model: System, tiles: Sequence[Tile]) -> Iterator[tuple[Sequence[Tile], Tensors, Tensors]]:
    """Tiles that show equally many patches together, their images on the model's device, their masks."""
    device, c = next(model.parameters()).device, model.config
    for shown, group in groupby(sorted(tiles, key=Tile.shown), key=Tile.shown):
        lacks = c.system in _WHOLE and len(shown) < len(c.modalities)
        if not shown or lacks or (c.system == "dino" and shown[0][1] < c.tokens):
            continue
        group = list(group)
        for start in range(0, len(group), BATCH):
            batch = group[start : start + BATCH]
            images = {name: torch.stack([tile.images[name] for tile in batch]).to(device) for name, _ in shown}
            yield batch, images, {name: torch.stack([tile.hidden[name] for tile in batch]) for name, _ in shown}


@torch.inference_mode()
def _encoded(model: System, images: Tensors, masks: Tensors) -> Latents:
    """Latents; without masks where nothing is hidden, which every system can do."""
    return model.encode(images, masks) if any(mask.any() for mask in masks.values()) else model.encode(images)
