"""Archive -> tensors: resample, normalise, augment. The only module that resamples.

Letters: B batch, C channels, H = W side in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.sensors import DECIBEL, Modality, get_modality
from fusmae_lite.data.archives.base import Archive
from fusmae_lite.data.archives.sample import check_archive

AUGMENTATIONS = ("none", "flips", "crops")
#: Smallest side of a random crop, as a share of the image's side.
SMALLEST_CROP = 0.5
#: Deviations of :func:`jitter`, in normalised units: an image's gain, its offset, each band's offset.
JITTER = (0.1, 0.2, 0.05)


class PairDataset(Dataset):
    """The pairs of one split as normalised tensors at one pixel grid.

    Args:
        archive: where the patches come from.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``; ignored if `indices` is given.
        indices: rows of the archive to use instead of a split.
        modalities: sensors to read; the others' files are not opened.
        size: side in pixels of every image; 120 is BigEarthNet's 10 m grid.
        normalise: subtract each band's mean and divide by its deviation; False keeps physical units.
        cache: keep what was read once in memory (0.8 MB a pair, native 0.3; each loader process keeps its own).
        native: leave bands as they lie on disk; :func:`assemble` makes images of a whole batch, on its device.

    An item is ``{"images": {"s1": (2, size, size) float32, "s2": (12, size, size) float32}, "labels": (n_classes,)
    float32 of 0 and 1, "index": row of the archive}``; with `native` it has instead of the images ``"bands": {"s1":
    {120: (2, 120, 120) float32}, "s2": {60: .., 120: .., ..}}``, a third of the bytes: bands of one side together, in
    band order. Augmentation is not done here but on batches: :func:`augment`.
    """

    def __init__(
        self,
        archive: Archive,
        split: str = "train",
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        modalities: Sequence[str] = ("s1", "s2"),
        size: int = 120,
        normalise: bool = True,
        cache: bool = False,
        native: bool = False,
    ) -> None:
        check_archive(archive, modalities)
        self.archive = archive
        self.indices = np.asarray(archive.split(split) if indices is None else indices, dtype=np.int64)
        self.modalities = tuple(get_modality(name) for name in modalities)
        self.size = size
        self.normalise = normalise
        self.native = native
        self._cache: dict[int, dict[str, Any]] | None = {} if cache else None
        self._column = {name: column for column, name in enumerate(archive.classes)}

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, i: int) -> str:
        """Patch name of item `i`."""
        return self.archive.names[int(self.indices[i])]

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = int(self.indices[i])
        if self._cache is None:
            return self._read(row)
        if row not in self._cache:
            self._cache[row] = self._read(row)
        item = self._cache[row]
        return {key: dict(value) if isinstance(value, dict) else value for key, value in item.items()}

    def _read(self, row: int) -> dict[str, Any]:
        patch = self.archive.read(row, [modality.name for modality in self.modalities])
        labels = torch.zeros(len(self._column))
        labels[[self._column[name] for name in patch.labels]] = 1.0
        if self.native:
            bands = {m.name: by_side(patch.bands[m.name], m, patch.name) for m in self.modalities}
            return {"bands": bands, "labels": labels, "index": row}
        images = {}
        for modality in self.modalities:
            native = {band: torch.from_numpy(array)[None] for band, array in patch.bands[modality.name].items()}
            image = stack_bands(native, modality, self.size)[0]
            images[modality.name] = normalise(image, modality) if self.normalise else image
        return {"images": images, "labels": labels, "index": row}


def assemble(bands: Mapping[str, Mapping[int, Tensor]], size: int = 120, normalised: bool = True) -> dict[str, Tensor]:
    """A batch of native bands -> images (B, C, size, size), resampled and normalised in one go wherever they lie.

    Args:
        bands: modality -> side in pixels -> (B, bands of that side, side, side), as a loader stacks the items of a
            ``PairDataset(native=True)``.
        size: side of the images in pixels.
        normalised: subtract each band's mean and divide by its deviation.

    Raises:
        InputError: bands of several sides that are not the sensor's own.
    """
    images = {}
    for name, sides in bands.items():
        modality = get_modality(name)
        channels = _channels_of(sides, modality)
        image = _resample([(channels[side], pixels) for side, pixels in sides.items()], modality, size)
        images[name] = normalise(image, modality) if normalised else image
    return images


def by_side(bands: Mapping[str, np.ndarray], modality: Modality, where: str) -> dict[int, Tensor]:
    """Band -> array becomes side -> (bands of that side, side, side), in band order and in the dtype on disk."""
    sides: dict[int, list[int]] = {}
    for channel, band in enumerate(modality.bands):
        sides.setdefault(bands[band].shape[0], []).append(channel)
    if len(sides) > 1 and sides != _native_channels(modality):
        odd = next(b for b in modality.bands if bands[b].shape[0] != modality.native_side(b))
        raise InputError(
            f"{where}: band {odd} of {modality.title} has {bands[odd].shape[0]} pixels a side",
            f"give all bands one side, or this one {modality.native_side(odd)}",
        )
    return {side: torch.from_numpy(np.stack([bands[modality.bands[c]] for c in chs])) for side, chs in sides.items()}


def _channels_of(sides: Mapping[int, Tensor], modality: Modality) -> dict[int, list[int]]:
    """Which channels the bands of each side are. All bands of one side, or those of the sensor's native sides."""
    if len(sides) == 1:
        return {side: list(range(modality.channels)) for side in sides}
    channels = _native_channels(modality)
    if {side: len(which) for side, which in channels.items()} != {s: pixels.shape[-3] for s, pixels in sides.items()}:
        raise InputError(
            f"bands of {modality.title} have sides of {', '.join(map(str, sides))} pixels",
            f"give all of them one side, or each its own: {', '.join(map(str, channels))}",
        )
    return channels


def _native_channels(modality: Modality) -> dict[int, list[int]]:
    """Native side -> channels of the bands that have it."""
    channels: dict[int, list[int]] = {}
    for channel, band in enumerate(modality.bands):
        channels.setdefault(modality.native_side(band), []).append(channel)
    return channels


def _resample(parts: Sequence[tuple[list[int], Tensor]], modality: Modality, size: int) -> Tensor:
    """Which channels, and their bands (B, c, h, w) of one side and any dtype -> (B, C, size, size) float32."""
    first = parts[0][1]
    image = torch.empty(first.shape[0], modality.channels, size, size, dtype=torch.float32, device=first.device)
    for which, bands in parts:
        bands = bands.to(torch.float32)
        if max(bands.shape[-2:]) > size:
            bands = _shrink(bands, size, power=modality.units == DECIBEL)
        if bands.shape[-2:] != (size, size):
            bands = F.interpolate(bands, size=(size, size), mode="bilinear", align_corners=False)
        image[:, which] = bands
    return image


def _shrink(images: Tensor, size: int, power: bool) -> Tensor:
    """Average areas of (B, C, h, w) until no side is longer than `size`.

    To pick pixels instead, as bilinear interpolation does, would keep the speckle and alias what is finer than a
    pixel. With `power` decibels are averaged as what they measure: the mean of 0 and -20 dB is -3 dB, not -10.
    """
    images = 10 ** (images / 10) if power else images
    height, width = images.shape[-2:]
    if height % size == 0 and width % size == 0:
        images = F.interpolate(images, size=(size, size), mode="area")  # whole pixels only: it has no shares of one
    else:
        for side in (height, width):  # rows first; turned twice, it is the right way round again
            images = (_shrink_rows(images, size) if side > size else images).transpose(-1, -2)
    return 10 * images.log10() if power else images


def _shrink_rows(images: Tensor, size: int) -> Tensor:
    """(..., h, w) -> (..., size, w). Sums in one order: the same to the last bit for any batch and processor."""
    side, total = images.shape[-2], torch.zeros((), device=images.device)
    images = images.contiguous()
    for index, shares in _areas(side, size, images.device):
        total = total + images.index_select(-2, index) * shares[:, None]
    return total / side


@lru_cache(maxsize=32)
def _areas(side: int, size: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """What each of `size` output pixels covers of `side` input pixels: its k-th pixel, and 1/size-ths of that one."""
    start = torch.arange(size) * side  # output pixel i covers i * side to (i + 1) * side, input pixel j likewise
    first = start // size
    pairs = []
    for k in range(-(-side // size) + 1):
        index = (first + k).clamp(max=side - 1)
        shares = torch.minimum(start + side, (index + 1) * size) - torch.maximum(start, index * size)
        shares[first + k >= side] = 0
        pairs.append((index.to(device), shares.clamp(min=0).to(device, torch.float32)))
    return pairs


def stack_bands(native: Mapping[str, Tensor], modality: Modality | str, size: int = 120) -> Tensor:
    """Bands at their native sides -> one float32 image (B, C, size, size), channels in the modality's band order.

    Going up: bilinear, ``align_corners=False``: pixels are areas, so a 60 m pixel stays centred on its 6 x 6 pixels of
    10 m. Going down: the mean of the area that a new pixel covers, of decibels in linear power. A band that has the
    size already is not touched. Bands of one side are resampled in one call.

    Args:
        native: band -> (B, h, w), any dtype and device; further bands are ignored.
        modality: the sensor, or its name.
        size: side of the result in pixels.

    Raises:
        InputError: a band of the modality is not there.
    """
    modality = _modality(modality)
    missing = [band for band in modality.bands if band not in native]
    if missing:
        raise InputError(f"{modality.title}: no band {', '.join(missing)}", f"give all of {', '.join(modality.bands)}")
    channels_of: dict[tuple[int, ...], list[int]] = {}
    for channel, band in enumerate(modality.bands):
        channels_of.setdefault(tuple(native[band].shape[-2:]), []).append(channel)
    parts = [
        (chs, torch.stack([native[modality.bands[ch]].float() for ch in chs], dim=1)) for chs in channels_of.values()
    ]
    return _resample(parts, modality, size)


def normalise(images: Tensor, modality: Modality | str) -> Tensor:
    """(B, C, H, W) or (C, H, W) in physical units -> each band with the mean 0 and deviation 1 of its data set."""
    mean, std = _statistics(images, _modality(modality))
    return (images - mean) / std


def denormalise(images: Tensor, modality: Modality | str) -> Tensor:
    """The way back to physical units (dB; reflectance x 10,000): inverse of :func:`normalise`, same shapes."""
    mean, std = _statistics(images, _modality(modality))
    return images * std + mean


def augment(
    images: Mapping[str, Tensor],
    kind: Literal["none", "flips", "crops"] = "flips",
    generator: torch.Generator | None = None,
    drawn: Sequence[Tensor] | None = None,
) -> dict[str, Tensor]:
    """Change the geometry of a batch: a draw per sample, the same for every modality, so that pairs stay registered.

    ``flips`` draws one of the 8 flips and quarter turns of the square; it moves pixels and changes none. ``crops``
    adds a random square of 50 to 100 % of the side, brought back to full size bilinearly, in one sampling step.

    Args:
        images: modality -> (B, C, H, W) with H = W; the sides of two modalities may differ.
        kind: none, flips or crops.
        generator: CPU source of the draws; the same state gives the same result.
        drawn: what :func:`draw_augmentation` gave, for these rows, instead of drawing here.
    """
    if kind == "none":
        return dict(images)
    if drawn is None:
        batch = next(iter(images.values())).shape[0] if images else 0
        drawn = draw_augmentation(batch, kind, generator)
    if kind == "flips":
        return {name: _turn(image, drawn[0]) for name, image in images.items()}
    theta = _crop_matrices(drawn[0], drawn[1])
    return {name: _sample(image, theta) for name, image in images.items()}


def draw_augmentation(batch: int, kind: str, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
    """The random part of :func:`augment`: tensors with a row per sample, so that processes can share out a batch."""
    if kind not in AUGMENTATIONS:
        raise InputError(f"unknown augmentation {kind!r}", f"choose one of {', '.join(AUGMENTATIONS)}")
    if kind == "none":
        return ()
    states = torch.randint(8, (batch,), generator=generator)
    return (states,) if kind == "flips" else (states, torch.rand(batch, 3, generator=generator))


def draw_jitter(batch: int, modalities: Sequence[str], generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """The random part of :func:`jitter`: modality -> (B, 2 + C), standard normal."""
    return {name: torch.randn(batch, 2 + get_modality(name).channels, generator=generator) for name in modalities}


def jitter(images: Mapping[str, Tensor], drawn: Mapping[str, Tensor], strength: float = 1.0) -> dict[str, Tensor]:
    """Another gain and offset for each image, and an offset for each band: a model cannot know scenes by their level.

    Args:
        images: modality -> (B, C, H, W), normalised.
        drawn: what :func:`draw_jitter` gave, for these rows.
        strength: factor on the deviations of :data:`JITTER`; 0 changes nothing.
    """
    jittered = {}
    for name, image in images.items():
        gain, offset, bands = drawn[name].to(image)[:, :, None, None].split([1, 1, image.shape[1]], dim=1)
        jittered[name] = image * (1 + strength * JITTER[0] * gain)
        jittered[name] += strength * (JITTER[1] * offset + JITTER[2] * bands)
    return jittered


def _turn(images: Tensor, states: Tensor) -> Tensor:
    """Apply to each sample its element of the dihedral group: bit 2 transposes, bits 0 and 1 flip x and y."""
    turned = torch.empty_like(images)
    for state in states.unique().tolist():
        # Found on the CPU, where the states are: a boolean index on a GPU would make the processor wait for it
        chosen = (states == state).nonzero().squeeze(1).to(images.device, non_blocking=True)
        part = images[chosen]
        part = part.transpose(-1, -2) if state & 4 else part
        flipped = [axis for bit, axis in ((1, -1), (2, -2)) if state & bit]
        turned[chosen] = part.flip(flipped) if flipped else part
    return turned


def _crop_matrices(states: Tensor, draws: Tensor) -> Tensor:
    """(B, 2, 3): output coordinates -> input coordinates, both in [-1, 1]; the crop never leaves the image."""
    share = SMALLEST_CROP + (1 - SMALLEST_CROP) * draws[:, 0]
    centre = (1 - share)[:, None] * (2 * draws[:, 1:] - 1)
    turn = torch.stack([_flip_matrix(state) for state in range(8)]).to(draws)[states]
    return torch.cat([share[:, None, None] * turn, centre[:, :, None]], dim=2)


def _flip_matrix(state: int) -> Tensor:
    """The (2, 2) matrix on (x, y) that samples what :func:`_turn` does for this state."""
    flip = torch.diag(torch.tensor([-1.0 if state & 1 else 1.0, -1.0 if state & 2 else 1.0]))
    return flip.flip(0) if state & 4 else flip


def _sample(images: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta.to(images), list(images.shape), align_corners=False)
    # "border": samples in the outer half pixel repeat the edge instead of mixing in zeros
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _modality(modality: Modality | str) -> Modality:
    return get_modality(modality) if isinstance(modality, str) else modality


def _statistics(images: Tensor, modality: Modality) -> tuple[Tensor, Tensor]:
    shape = (modality.channels, 1, 1)
    return images.new_tensor(modality.mean).view(shape), images.new_tensor(modality.std).view(shape)
