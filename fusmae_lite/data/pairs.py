"""Archive -> tensors: resample and normalise. The only module that resamples.

Letters: B batch, C channels, H = W side in pixels.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from fusmae_lite.core.errors import InputError
from fusmae_lite.core.progress import line
from fusmae_lite.core.sensors import DECIBEL, Modality, get_modality
from fusmae_lite.data.archives.base import Archive, Patch
from fusmae_lite.data.archives.sample import check_archive

#: The most that `cache` keeps in memory, in each process.
CACHE_GIB = 4


class PairDataset(Dataset):
    """The pairs of one split as normalised tensors at one pixel grid.

    Args:
        archive: where the patches come from.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        indices: rows of the archive, instead of a split.
        modalities: sensors to read; the others' files are not opened.
        size: side in pixels of every image; 120 is BigEarthNet's 10 m grid.
        normalise: False keeps physical units.
        cache: keep what was read once in memory (0.8 MB a pair, native 0.3; each loader process keeps its own).
        native: leave bands as they lie on disk; :func:`assemble` makes images of a whole batch, on its device.

    An item is ``{"images": {"s1": (2, size, size) float32, "s2": (12, size, size) float32}, "labels": (n_classes,)
    float32 of 0 and 1, "index": row of the archive}``; with `native` it has instead of the images ``"bands": {"s1":
    {"VV": (120, 120) float32, ..}, "s2": {"B01": (20, 20) uint16, ..}}``, a third of the bytes.
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
        self.size, self.normalise, self.native = size, normalise, native
        self._cache: dict[int, dict[str, Any]] | None = {} if cache else None
        self._full = False

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, i: int) -> str:
        """Patch name of item `i`."""
        return self.archive.names[int(self.indices[i])]

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = int(self.indices[i])
        if self._cache is None:
            return self._read(row)
        item = self._cache.get(row)
        if item is None:
            item = self._read(row)
            self._keep(row, item)
        return {key: dict(value) if isinstance(value, dict) else value for key, value in item.items()}

    def _keep(self, row: int, item: dict[str, Any]) -> None:
        """Remember a pair, until those remembered fill :data:`CACHE_GIB`."""
        parts = item.get("images") or {b: x for bands in item["bands"].values() for b, x in bands.items()}
        size = sum(tensor.nbytes for tensor in parts.values())
        if len(self._cache) * size < CACHE_GIB * 2**30:
            self._cache[row] = item
        elif not self._full:
            self._full = True
            line(
                f"note: cache=true keeps {len(self._cache):,} of {len(self):,} pairs, {CACHE_GIB} GiB; others are read"
            )

    def _read(self, row: int) -> dict[str, Any]:
        return self._item(self.archive.read(row, [modality.name for modality in self.modalities]), row)

    def _item(self, patch: Patch, row: int) -> dict[str, Any]:
        labels = torch.tensor([name in patch.labels for name in self.archive.classes], dtype=torch.float32)
        item = {"labels": labels, "index": row}
        bands = {m: {b: torch.from_numpy(array) for b, array in native.items()} for m, native in patch.bands.items()}
        if self.native:
            return {"bands": bands, **item}
        batch = {name: {band: array[None] for band, array in native.items()} for name, native in bands.items()}
        images = {name: image[0] for name, image in assemble(batch, self.size, self.normalise).items()}
        return {"images": images, **item}


class TorchGeoDataset(PairDataset):
    """The pairs of one split as TorchGeo's samples: stacked channels, for its transforms, trainers and models.

    Takes what :class:`PairDataset` takes. An item is ``{"image": (C, size, size) float32, "label": (n_classes,) int64,
    "crs": "EPSG:32633", "bbox": (4,) float64, left, bottom, right, top}``; the channels are those of
    `modalities`, one sensor after the other: VV VH B01 .. B12. Where a file has no place, crs is empty and bbox NaN.
    """

    def __init__(self, archive: Archive, split: str = "train", **options: Any) -> None:
        if options.get("native"):
            raise InputError("native bands have different sides and cannot be stacked", "leave native out")
        super().__init__(archive, split, **options)

    def __getitem__(self, i: int) -> dict[str, Any]:
        item = super().__getitem__(i)
        image, label = torch.cat(list(item["images"].values())), item["labels"].long()
        return {"image": image, "label": label, "crs": item["crs"], "bbox": item["bbox"]}

    def _item(self, patch: Patch, row: int) -> dict[str, Any]:
        bbox = torch.tensor(patch.bounds or [torch.nan] * 4, dtype=torch.float64)
        return {**super()._item(patch, row), "crs": patch.crs or "", "bbox": bbox}


def assemble(
    bands: Mapping[str, Mapping[str, Tensor]],
    size: int = 120,
    normalised: bool = True,
    device: torch.device | None = None,
) -> dict[str, Tensor]:
    """A batch of native bands, modality -> band -> (B, side, side), as images (B, C, size, size).

    They travel to `device` as they lie on disk and become images there; without one, where they are.
    """
    moved = {k: {b: x.to(device, non_blocking=True) for b, x in native.items()} for k, native in bands.items()}
    images = {name: stack_bands(native, name, size) for name, native in moved.items()}
    return {name: normalise(image, name) for name, image in images.items()} if normalised else images


def stack_bands(native: Mapping[str, Tensor], modality: Modality | str, size: int = 120) -> Tensor:
    """Bands at their native sides -> one float32 image (B, C, size, size), channels in the modality's band order.

    Going up: bilinear, ``align_corners=False``: pixels are areas, so a 60 m pixel stays centred on its 6 x 6 pixels of
    10 m. Going down: the mean of the area that a new pixel covers, of decibels in linear power. A band that has the
    size already is not touched.

    `native` maps band -> (B, h, w) of any type; further bands are ignored. InputError for a band that is missing.
    """
    modality = _modality(modality)
    missing = [band for band in modality.bands if band not in native]
    if missing:
        raise InputError(f"{modality.title}: no band {', '.join(missing)}", f"give all of {', '.join(modality.bands)}")
    groups: dict[torch.Size, list[int]] = {}  # bands of one side are resampled in one call
    for channel, band in enumerate(modality.bands):
        groups.setdefault(native[band].shape, []).append(channel)
    first = native[modality.bands[0]]
    image = torch.empty(len(first), modality.channels, size, size, dtype=torch.float32, device=first.device)
    for channels in groups.values():
        bands = torch.stack([native[modality.bands[channel]].float() for channel in channels], dim=1)
        if max(bands.shape[-2:]) > size:
            bands = _shrink(bands, size, power=modality.units == DECIBEL)
        if bands.shape[-2:] != (size, size):
            bands = F.interpolate(bands, size=(size, size), mode="bilinear", align_corners=False)
        image[:, channels] = bands
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
    side, images = images.shape[-2], images.contiguous()
    areas = _areas(side, size, images.device)
    return sum(images.index_select(-2, index) * shares[:, None] for index, shares in areas) / side


@lru_cache(maxsize=32)
def _areas(side: int, size: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """What each of `size` output pixels covers of `side` input pixels: its k-th pixel, and 1/size-ths of that one."""
    start = torch.arange(size) * side  # output pixel i covers i * side to (i + 1) * side, input pixel j likewise
    areas = []
    for k in range(-(-side // size) + 1):
        index = start // size + k
        shares = torch.minimum(start + side, (index + 1) * size) - torch.maximum(start, index * size)
        areas.append((index.clamp(max=side - 1).to(device), shares.clamp(min=0).to(device, torch.float32)))
    return areas


def normalise(images: Tensor, modality: Modality | str) -> Tensor:
    """(B, C, H, W) or (C, H, W) in physical units -> each band with the mean 0 and deviation 1 of its data set."""
    mean, std = _statistics(images, modality)
    return (images - mean) / std


def denormalise(images: Tensor, modality: Modality | str) -> Tensor:
    """The way back to physical units (dB; reflectance x 10,000): inverse of :func:`normalise`, same shapes."""
    mean, std = _statistics(images, modality)
    return images * std + mean


def _modality(modality: Modality | str) -> Modality:
    return get_modality(modality) if isinstance(modality, str) else modality


def _statistics(images: Tensor, modality: Modality | str) -> tuple[Tensor, ...]:
    modality = _modality(modality)
    return tuple(images.new_tensor(values)[:, None, None] for values in (modality.mean, modality.std))
